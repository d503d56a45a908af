//! Dashboards as Grafana's JSON.

use serde_json::{Value, json};

use super::{Board, Kind, Panel, Query, State, TAG, Variable, variables};

/// Version of the format; Grafana migrates older ones by itself, so an old one suits everybody.
const SCHEMA_VERSION: u32 = 39;

/// Columns of a dashboard.
const COLUMNS: u32 = 24;

/// The choice of a data source.
const DATASOURCE: &str = "datasource";

/// A whole dashboard.
pub fn dashboard(board: &Board) -> Value {
    let mut templating = vec![datasource_variable()];
    templating.extend(variables(board.scope).map(query_variable));
    json!({
        "uid": board.uid,
        "title": board.title,
        "description": board.description,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "editable": false,
        // A crosshair that all panels share.
        "graphTooltip": 1,
        "time": { "from": "now-1h", "to": "now" },
        "refresh": "30s",
        "timezone": "browser",
        "links": [link_to_others()],
        "annotations": { "list": [] },
        "templating": { "list": templating },
        "panels": panels(board),
    })
}

fn link_to_others() -> Value {
    json!({
        "title": "ipvs-lens",
        "type": "dashboards",
        "icon": "external link",
        "tooltip": "The other dashboards of ipvs-lens, with the same choices",
        "tags": [TAG],
        "asDropdown": false,
        "includeVars": true,
        "keepTime": true,
        "targetBlank": false,
        "url": "",
    })
}

fn datasource_variable() -> Value {
    json!({
        "name": DATASOURCE,
        "label": "Data Source",
        "type": "datasource",
        "query": "prometheus",
        "regex": "",
        "refresh": 1,
        "hide": 0,
        "multi": false,
        "includeAll": false,
        "options": [],
        "current": { "selected": false, "text": "default", "value": "default" },
    })
}

/// A variable whose values narrow with those before it.
fn query_variable(variable: &Variable) -> Value {
    let before: Vec<_> = super::VARIABLES
        .iter()
        .take_while(|other| other.label != variable.label)
        .map(|other| format!("{0}=~\"${0}\"", other.label))
        .collect();
    let query = format!(
        "label_values({}{{{}}}, {})",
        variable.metric,
        before.join(","),
        variable.label
    );
    json!({
        "name": variable.label,
        "label": variable.title,
        "type": "query",
        "datasource": datasource(),
        "query": { "query": query, "refId": variable.label },
        // When the time range changes.
        "refresh": 2,
        "regex": "",
        "sort": 1,
        "hide": 0,
        "multi": true,
        "includeAll": true,
        "allValue": variable.all,
        "options": [],
        "current": { "selected": true, "text": ["All"], "value": ["$__all"] },
    })
}

fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": format!("${{{DATASOURCE}}}") })
}

/// Rows from the top, panels from the left; a panel that does not fit begins a new line.
fn panels(board: &Board) -> Vec<Value> {
    let mut all = Vec::new();
    let mut top = 0;
    for row in board.rows {
        let id = all.len() + 1;
        all.push(json!({
            "id": id,
            "type": "row",
            "title": row.title,
            "collapsed": false,
            "panels": [],
            "gridPos": { "x": 0, "y": top, "w": COLUMNS, "h": 1 },
        }));
        top += 1;
        let (mut left, mut tallest) = (0, 0);
        for panel in row.panels {
            if left + panel.width > COLUMNS {
                top += tallest;
                (left, tallest) = (0, 0);
            }
            let id = all.len() + 1;
            all.push(self::panel(panel, id, left, top));
            left += panel.width;
            tallest = tallest.max(height(panel.kind));
        }
        top += tallest;
    }
    all
}

const fn height(kind: Kind) -> u32 {
    match kind {
        Kind::Stat => 4,
        _ => 8,
    }
}

fn panel(panel: &Panel, id: usize, left: u32, top: u32) -> Value {
    let targets: Vec<_> = panel
        .queries
        .iter()
        .zip('A'..='Z')
        .map(|(query, letter)| target(query, panel.kind, letter))
        .collect();
    let mut json = json!({
        "id": id,
        "type": type_name(panel.kind),
        "title": panel.title,
        "description": panel.description,
        "datasource": datasource(),
        "gridPos": { "x": left, "y": top, "w": panel.width, "h": height(panel.kind) },
        "targets": targets,
        "fieldConfig": { "defaults": field_defaults(panel), "overrides": [] },
        "options": options(panel),
    });
    if panel.kind == Kind::Table {
        json["transformations"] = transformations();
    }
    json
}

const fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Stat => "stat",
        Kind::Lines | Kind::Areas => "timeseries",
        Kind::Heatmap => "heatmap",
        Kind::States(_) => "state-timeline",
        Kind::Table => "table",
    }
}

fn target(query: &Query, kind: Kind, letter: char) -> Value {
    let table = kind == Kind::Table;
    let format = match kind {
        Kind::Table => "table",
        Kind::Heatmap => "heatmap",
        _ => "time_series",
    };
    json!({
        "refId": letter.to_string(),
        "datasource": datasource(),
        "editorMode": "code",
        "expr": query.with_selectors(),
        "legendFormat": query.legend,
        "format": format,
        "instant": table,
        "range": !table,
    })
}

fn field_defaults(panel: &Panel) -> Value {
    let mut defaults = json!({ "unit": panel.unit });
    match panel.kind {
        Kind::Lines | Kind::Areas => {
            defaults["min"] = json!(0);
            defaults["custom"] = lines(panel.kind);
        }
        Kind::States(states) => {
            defaults["mappings"] = mappings(states);
            defaults["custom"] = json!({ "fillOpacity": 80, "lineWidth": 0 });
        }
        Kind::Table => {
            defaults["custom"] =
                json!({ "align": "auto", "cellOptions": { "type": "auto" }, "inspect": false });
        }
        Kind::Stat | Kind::Heatmap => {}
    }
    defaults
}

fn lines(kind: Kind) -> Value {
    let (fill, stacking) = if kind == Kind::Areas {
        (40, "normal")
    } else {
        (10, "none")
    };
    json!({
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": fill,
        "showPoints": "never",
        "spanNulls": false,
        "stacking": { "mode": stacking, "group": "A" },
    })
}

fn mappings(states: &[State]) -> Value {
    let options: serde_json::Map<_, _> = states
        .iter()
        .enumerate()
        .map(|(index, state)| {
            let shown = json!({ "text": state.text, "color": state.color, "index": index });
            (state.value.to_string(), shown)
        })
        .collect();
    json!([{ "type": "value", "options": options }])
}

fn options(panel: &Panel) -> Value {
    let legend = json!({
        "calcs": [],
        "displayMode": "list",
        "placement": "bottom",
        "showLegend": true,
    });
    match panel.kind {
        Kind::Stat => json!({
            "colorMode": "value",
            "graphMode": "area",
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": "auto",
            "wideLayout": true,
            "showPercentChange": false,
            "percentChangeColorMode": "standard",
            "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
        }),
        Kind::Lines | Kind::Areas => json!({
            "legend": legend,
            "tooltip": { "mode": "multi", "sort": "desc" },
        }),
        Kind::Heatmap => json!({
            "calculate": false,
            "cellGap": 1,
            "color": {
                "mode": "scheme",
                "scheme": "Oranges",
                "steps": 64,
                "exponent": 0.5,
                "reverse": false,
                "fill": "dark-orange",
            },
            "exemplars": { "color": "rgba(255,0,255,0.7)" },
            "filterValues": { "le": 1e-9 },
            "legend": { "show": true },
            "rowsFrame": { "layout": "auto" },
            "showValue": "never",
            "tooltip": { "mode": "single", "yHistogram": false, "showColorScale": false },
            "yAxis": { "unit": panel.unit, "axisPlacement": "left", "reverse": false },
        }),
        Kind::States(_) => json!({
            "alignValue": "left",
            "mergeValues": true,
            "rowHeight": 0.8,
            "showValue": "auto",
            "legend": legend,
            "tooltip": { "mode": "single", "sort": "none" },
        }),
        Kind::Table => json!({
            "cellHeight": "sm",
            "frameIndex": 0,
            "showHeader": true,
        }),
    }
}

/// One line per series; when it was measured is the same for all.
fn transformations() -> Value {
    json!([
        { "id": "merge", "options": {} },
        { "id": "organize", "options": { "excludeByName": { "Time": true } } },
    ])
}

#[cfg(test)]
mod tests {
    use super::super::{BOARDS, Kind, Panel, Query, Row, Scope};
    use super::dashboard;

    const PANEL: Panel = Panel {
        title: "t",
        description: "d",
        kind: Kind::Lines,
        unit: "s",
        width: 16,
        queries: &[Query {
            expr: "sum(rate(a{<agent>}[$__rate_interval]))",
            legend: "{{job}}",
            may_be_empty: None,
        }],
    };

    #[test]
    fn panels_that_do_not_fit_begin_a_line() {
        let board = super::Board {
            uid: "u",
            title: "t",
            description: "d",
            scope: Scope::Agent,
            rows: &[
                Row {
                    title: "one",
                    panels: &[PANEL, PANEL],
                },
                Row {
                    title: "two",
                    panels: &[PANEL],
                },
            ],
        };
        let json = dashboard(&board);
        let places: Vec<_> = json["panels"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|panel| {
                let place = &panel["gridPos"];
                (place["x"].as_u64(), place["y"].as_u64())
            })
            .collect();
        assert_eq!(
            places,
            [(0, 0), (0, 1), (0, 9), (0, 17), (0, 18)].map(|(x, y)| (Some(x), Some(y)))
        );
    }

    #[test]
    fn selectors_are_the_boards_variables() {
        assert_eq!(
            PANEL.queries[0].with_selectors(),
            "sum(rate(a{cluster=~\"$cluster\",job=~\"$job\",instance=~\"$instance\"}[$__rate_interval]))"
        );
        assert_eq!(
            PANEL.queries[0].for_all("15s"),
            "sum(rate(a{cluster=~\".*\",job=~\".+\",instance=~\".+\"}[15s]))"
        );
        assert!(!BOARDS.is_empty());
    }
}
