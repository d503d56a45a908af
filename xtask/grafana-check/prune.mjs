// Leaves out of package-lock.json what the check never loads: node prune.mjs, after npm wrote the file anew.
//
// Grafana's packages carry a whole web frontend; the check reads type declarations and one list of units.
import { readFileSync, writeFileSync } from 'node:fs';

// Packages whose own list of dependencies is cut to these.
const KEEP = {
  '@grafana/data': ['@grafana/i18n', 'lodash', 'moment', 'moment-timezone'],
  '@grafana/schema': ['tslib'],
  '@grafana/i18n': ['i18next', 'i18next-browser-languagedetector', 'micro-memoize', 'react-i18next'],
  'react-i18next': ['@babel/runtime', 'html-parse-stringify', 'react', 'use-sync-external-store'],
  'i18next': [],
  'use-sync-external-store': [],
};

const lock = JSON.parse(readFileSync('package-lock.json', 'utf8'));
for (const [name, kept] of Object.entries(KEEP)) {
  const entry = lock.packages[`node_modules/${name}`];
  const all = { ...entry.peerDependencies, ...entry.dependencies };
  entry.dependencies = Object.fromEntries(kept.filter((name) => name in all).map((name) => [name, all[name]]));
  delete entry.peerDependencies;
  delete entry.peerDependenciesMeta;
}

// As Node looks for a package: in the folder of the one that asks, then in those around it.
function place(from, name) {
  for (let folder = from; ; folder = folder.slice(0, Math.max(0, folder.lastIndexOf('node_modules/') - 1))) {
    const path = `${folder === '' ? '' : `${folder}/`}node_modules/${name}`;
    if (path in lock.packages) {
      return path;
    }
    if (folder === '') {
      return null;
    }
  }
}

const needed = new Set(['']);
for (const from of needed) {
  for (const name of Object.keys(lock.packages[from].dependencies ?? {})) {
    const path = place(from, name);
    if (path !== null) {
      needed.add(path);
    }
  }
}
lock.packages = Object.fromEntries(Object.entries(lock.packages).filter(([path]) => needed.has(path)));
writeFileSync('package-lock.json', `${JSON.stringify(lock, null, 2)}\n`);
console.log(`${needed.size - 1} packages`);
