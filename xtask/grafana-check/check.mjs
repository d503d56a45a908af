// Holds dashboards against what Grafana publishes: node check.mjs DASHBOARD.json...
//
// - the dashboard as a whole, then the options of each panel by its type, against Grafana's schema,
//   where a property it does not know is an error;
// - every unit against Grafana's registry of units.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Ajv from 'ajv';
import { createGenerator } from 'ts-json-schema-generator';

const MODULES = join(dirname(fileURLToPath(import.meta.url)), 'node_modules');
const TYPES = join(MODULES, '@grafana/schema/dist/types/raw');
const DASHBOARD = join(TYPES, 'dashboard/x/types.gen.d.ts');

const ajv = new Ajv({ strict: false, allErrors: true });
const validators = new Map();

// A validator of one type of one file of declarations; null where the file has no such type.
function validator(path, type) {
  const key = `${path}#${type}`;
  if (!validators.has(key)) {
    validators.set(key, compile(path, type));
  }
  return validators.get(key);
}

function compile(path, type) {
  if (!new RegExp(`export (interface|type) ${type}\\b`).test(readFileSync(path, 'utf8'))) {
    return null;
  }
  const settings = { path, type, skipTypeCheck: true, additionalProperties: false };
  return ajv.compile(createGenerator(settings).createSchema(type));
}

function* faults(what, validate, value) {
  if (validate(value)) {
    return;
  }
  for (const error of validate.errors) {
    yield `${what}${error.instancePath}: ${error.message} ${JSON.stringify(error.params)}`;
  }
}

function* checkPanel(what, panel) {
  const types = join(TYPES, 'composable', panel.type.replaceAll('-', ''), 'panelcfg/x/types.gen.d.ts');
  const options = validator(types, 'Options');
  if (options === null) {
    yield `${what}: the schema has no options for ${panel.type}`;
  } else {
    yield* faults(`${what}: options`, options, panel.options);
  }
  const { custom, unit } = panel.fieldConfig.defaults;
  const fields = validator(types, 'FieldConfig');
  if (fields !== null) {
    yield* faults(`${what}: custom`, fields, custom ?? {});
  } else if (custom !== undefined) {
    yield `${what}: ${panel.type} has no field options of its own`;
  }
  if (!UNITS.has(unit)) {
    yield `${what}: ${unit} is no unit of Grafana`;
  }
}

function* check(file) {
  const dashboard = JSON.parse(readFileSync(file, 'utf8'));
  yield* faults(file, validator(DASHBOARD, 'Dashboard'), dashboard);
  for (const panel of dashboard.panels.filter((panel) => panel.type !== 'row')) {
    yield* checkPanel(`${file}: ${panel.title}`, panel);
  }
}

// The registry is made for a browser, and asks it for its language.
function units() {
  globalThis.navigator ??= { userAgent: '', platform: '', language: 'en', languages: ['en'] };
  globalThis.window = globalThis;
  globalThis.document ??= { documentElement: { style: {} }, addEventListener() {} };
  const require = createRequire(import.meta.url);
  const path = join(MODULES, '@grafana/data/dist/cjs/valueFormats/valueFormats.cjs');
  const groups = require(path).getValueFormats();
  return new Set(groups.flatMap((group) => group.submenu.map((unit) => unit.value)));
}

const UNITS = units();
const files = process.argv.slice(2);
if (files.length === 0) {
  console.error('usage: node check.mjs DASHBOARD.json...');
  process.exit(2);
}
let count = 0;
for (const file of files) {
  for (const fault of check(file)) {
    console.error(fault);
    count += 1;
  }
}
console.log(`${files.length} dashboards, ${validators.size} types, ${UNITS.size} units: ${count} faults`);
process.exit(count === 0 ? 0 : 1);
