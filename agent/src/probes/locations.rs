//! Tells the kernel programs where the code is whose drops and calls they recognise by address.

use std::path::Path;

use agent_common::config::{
    DROP_LOCATIONS_MAX, DropLocation, HOOK_CALLERS_MAX, HOOK_LOOPS, HookCaller,
};
use aya::maps::{Array, MapData, MapError};

use super::error::AttachError;
use super::table::all_functions;
use crate::kernel::symbols::{self, KernelSymbols, Symbols};
use crate::kernel::{netfilter, reasons};

/// Where every SYN is freed, as far as is known without addresses: nothing is counted by location
/// then, because a SYN that was answered by a RST could not be distinguished from one that was dropped.
const ANYWHERE: DropLocation = DropLocation {
    start: 0,
    end: u64::MAX,
    cause: 0,
    pad: 0,
};

/// The kernel's symbols, as far as the programs need them.
pub(super) fn read_symbols(has_type: impl Fn(&str) -> bool) -> KernelSymbols {
    let locations = reasons::LOCATIONS.iter().map(|(function, _)| *function);
    let callers = netfilter::CALLERS.iter().map(|(function, _)| *function);
    let asked = all_functions().chain(locations).chain(callers);
    let asked: Vec<&str> = asked.chain([netfilter::LOOP]).collect();
    symbols::read(Path::new("/"), &asked.iter().copied(), has_type)
}

/// Fills `DROP_LOCATIONS`: what a SYN died of, by the function that freed it, where the kernel has
/// no reasons or its reason says nothing.
pub(super) fn fill_drop_locations(
    mut map: Array<&mut MapData, DropLocation>,
    symbols: &Symbols,
    has_reasons: bool,
) -> Result<(), AttachError> {
    let failed = |source: MapError| AttachError::Map {
        name: "DROP_LOCATIONS",
        source,
    };
    if !symbols.have_addresses() {
        return map.set(0, &ANYWHERE, 0).map_err(failed);
    }
    let pieces = reasons::locations(has_reasons)
        .flat_map(|(function, cause)| symbols.code(function).map(move |code| (code, cause)));
    for (number, (code, cause)) in (0..DROP_LOCATIONS_MAX).zip(pieces) {
        let location = DropLocation {
            start: code.start,
            end: code.end,
            cause: u32::from(cause),
            pad: 0,
        };
        map.set(number, &location, 0).map_err(failed)?;
    }
    Ok(())
}

/// Fills `HOOK_CALLERS`: the netfilter hook that dropped a SYN, by who called its rules.
pub(super) fn fill_hook_callers(
    mut map: Array<&mut MapData, HookCaller>,
    symbols: &Symbols,
) -> Result<(), AttachError> {
    // What runs the rules comes first, then who calls it.
    let loops = symbols.code(netfilter::LOOP).map(|code| (code, 0));
    let callers = netfilter::CALLERS.iter().flat_map(|(function, hook)| {
        let pieces = symbols.code(function);
        pieces.map(move |code| (code, *hook as u32))
    });
    let numbered = (0..HOOK_LOOPS).zip(loops);
    for (number, (code, hook)) in numbered.chain((HOOK_LOOPS..HOOK_CALLERS_MAX).zip(callers)) {
        let caller = HookCaller {
            start: code.start,
            end: code.end,
            hook,
            pad: 0,
        };
        map.set(number, &caller, 0)
            .map_err(|source| AttachError::Map {
                name: "HOOK_CALLERS",
                source,
            })?;
    }
    Ok(())
}
