//! Rules and routes in time-lapse: every duration divided by the same number, nothing else changed.
//!
//! People who watch do not wait five minutes for a page, and neither do tests. Thresholds, windows
//! relative to each other and the order of things stay as shipped.

/// How much faster than shipped: five minutes become 25 s, the rules' four scrapes at 30 s four at
/// 2.5 s.
pub const FACTOR: u64 = 12;

/// Interval of scrapes that the rules are made for, in milliseconds.
const SHIPPED_SCRAPE_MS: u64 = 30_000;

/// What Grafana puts in for `$__rate_interval` at this interval of scrapes: four of them.
pub const WINDOW: &str = "10s";

/// Keys whose value is a duration.
const KEYS: [&str; 5] = [
    "for:",
    "keep_firing_for:",
    "group_wait:",
    "group_interval:",
    "repeat_interval:",
];

/// Interval of scrapes in time-lapse, in milliseconds.
pub const SCRAPE_MS: u64 = SHIPPED_SCRAPE_MS / FACTOR;

/// A rule file or a configuration of Alertmanager in time-lapse.
pub fn compress(text: &str) -> String {
    let mut fast = String::with_capacity(text.len());
    for line in text.lines() {
        fast.push_str(&compress_line(line));
        fast.push('\n');
    }
    fast
}

fn compress_line(line: &str) -> String {
    let trimmed = line.trim_start();
    if trimmed.starts_with('#') {
        return line.to_owned();
    }
    if let Some(key) = KEYS.into_iter().find(|key| trimmed.starts_with(key)) {
        let value = trimmed[key.len()..].trim();
        let indent = &line[..line.len() - trimmed.len()];
        if let Some(duration) = compress_duration(value) {
            return format!("{indent}{key} {duration}");
        }
    }
    compress_windows(line)
}

/// Durations in square brackets: the windows of queries.
fn compress_windows(line: &str) -> String {
    let mut parts = line.split('[');
    let mut fast = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        fast.push('[');
        let window = part.split_once(']');
        match window.and_then(|(window, rest)| Some((compress_duration(window)?, rest))) {
            Some((window, rest)) => {
                fast.push_str(&window);
                fast.push(']');
                fast.push_str(rest);
            }
            None => fast.push_str(part),
        }
    }
    fast
}

/// `2m` in time-lapse; `None` for what is no duration of one unit.
fn compress_duration(duration: &str) -> Option<String> {
    let unit_ms = match duration.chars().last()? {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        'w' => 604_800_000,
        _ => return None,
    };
    let count: u64 = duration[..duration.len() - 1].parse().ok()?;
    Some(format!("{}ms", count * unit_ms / FACTOR))
}

#[cfg(test)]
mod tests {
    use super::compress;

    #[test]
    fn durations_are_divided_and_nothing_else() {
        let rules = "# for: 5m\n        expr: rate(a[2m]) > 0.05\n        for: 5m\n";
        assert_eq!(
            compress(rules),
            "# for: 5m\n        expr: rate(a[10000ms]) > 0.05\n        for: 25000ms\n"
        );
        let route = "  group_by: [alertname, cluster]\n  repeat_interval: 1w\n";
        assert_eq!(
            compress(route),
            "  group_by: [alertname, cluster]\n  repeat_interval: 50400000ms\n"
        );
    }

    #[test]
    fn matchers_are_no_windows() {
        let matchers = "    - matchers: [severity = \"critical\"]\n";
        assert_eq!(compress(matchers), matchers);
    }
}
