//! The kernel's symbol table: which functions there are, and where each begins and ends. Pure.
//!
//! Source: `/proc/kallsyms`, one `address type name [module]` per line (kernel/kallsyms.c).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

/// Functions asked for, as far as this kernel has them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Symbols {
    functions: HashMap<String, Range<u64>>,
}

impl Symbols {
    /// Finds `wanted` functions in the text of `/proc/kallsyms`.
    ///
    /// A function ends where the next symbol of a higher address begins. Lines that do not parse
    /// are passed over: the table is the kernel's own.
    pub fn parse(text: &str, wanted: &[&str]) -> Self {
        let wanted: HashSet<&str> = wanted.iter().copied().collect();
        // By where they begin: the name, and the next address if there is one.
        let mut found: BTreeMap<u64, (&str, Option<u64>)> = BTreeMap::new();
        // A kernel has some 200,000 symbols: they are kept, but neither sorted nor named.
        let mut addresses = Vec::new();
        for (address, kind, name) in text.lines().filter_map(symbol) {
            addresses.push(address);
            if matches!(kind, "t" | "T") && wanted.contains(function_of(name)) {
                found.insert(address, (name, None));
            }
        }
        for address in addresses {
            if let Some((_, (_, next))) = found.range_mut(..address).next_back() {
                *next = Some(next.map_or(address, |next| next.min(address)));
            }
        }
        let functions = found
            .into_iter()
            .map(|(start, (name, next))| (name.to_owned(), start..next.unwrap_or(start)))
            .collect();
        Self { functions }
    }

    /// Whether this kernel has the function under exactly this name.
    pub fn has(&self, function: &str) -> bool {
        self.functions.contains_key(function)
    }

    /// Addresses of the function's code, also of pieces the compiler made of it
    /// (`name.constprop.0`, `name.cold`); none when they are hidden from this process.
    pub fn code(&self, function: &str) -> impl Iterator<Item = Range<u64>> {
        let pieces = self.functions.iter();
        pieces
            .filter(move |(name, _)| function_of(name) == function)
            .map(|(_, code)| code.clone())
    }
}

/// The function a symbol is a piece of.
fn function_of(symbol: &str) -> &str {
    symbol
        .split_once('.')
        .map_or(symbol, |(function, _)| function)
}

fn symbol(line: &str) -> Option<(u64, &str, &str)> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    Some((address, words.next()?, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
ffffffff81000000 T nf_hook_slow
ffffffff81000100 t nf_hook_slow.cold
ffffffff81000080 T nf_hook_slow_list
ffffffff81000200 D nf_data
ffffffffc0000000 t ip_vs_in_hook\t[ip_vs]
not a line
";

    #[test]
    fn a_function_ends_where_the_next_symbol_begins() {
        let symbols = Symbols::parse(TEXT, &["nf_hook_slow", "ip_vs_in_hook"]);
        let mut code: Vec<_> = symbols.code("nf_hook_slow").collect();
        code.sort_by_key(|piece| piece.start);
        assert_eq!(
            code,
            [
                0xffff_ffff_8100_0000..0xffff_ffff_8100_0080,
                0xffff_ffff_8100_0100..0xffff_ffff_8100_0200
            ],
            "both pieces"
        );
        assert!(
            symbols.has("ip_vs_in_hook"),
            "of a module, and the last of all"
        );
    }

    #[test]
    fn names_match_whole_and_only_code_counts() {
        let symbols = Symbols::parse(TEXT, &["nf_hook", "nf_data"]);
        assert!(!symbols.has("nf_hook") && !symbols.has("nf_data"));
        assert_eq!(symbols.code("nf_hook").count(), 0);
    }
}
