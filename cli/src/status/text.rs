//! The screen: a table a kind.

use anstyle::Style;

use super::view::{Nodes, Overview, Part};
use crate::say;

/// Conditions that are shown one by one.
const ATTENTION: usize = 20;

impl Overview {
    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        section(
            &mut lines,
            "MODELS",
            &[
                "NAMESPACE",
                "NAME",
                "SERVING",
                "VERSIONS",
                "ROLLOUT",
                "DRIFT",
                "READY",
                "MESSAGE",
            ],
            &self.models,
            |m| {
                let versions = m.versions.to_string();
                [
                    &m.namespace,
                    &m.name,
                    &m.serving,
                    &versions,
                    &m.rollout,
                    &m.drift,
                    &m.ready,
                    &m.message,
                ]
                .map(Clone::clone)
                .to_vec()
            },
        );
        section(
            &mut lines,
            "TRACE PROFILES",
            &[
                "NAMESPACE",
                "NAME",
                "PODS",
                "CONTAINERS",
                "NODES",
                "WITHHELD",
                "READY",
                "MESSAGE",
            ],
            &self.profiles,
            |p| {
                let [pods, containers, nodes] = [p.pods, p.containers, p.nodes].map(|n| n.to_string());
                vec![
                    p.namespace.clone(),
                    p.name.clone(),
                    pods,
                    containers,
                    nodes,
                    p.alerts_withheld.to_string(),
                    p.ready.clone(),
                    p.message.clone(),
                ]
            },
        );
        if !self.trainings.is_empty() {
            section(
                &mut lines,
                "TRAININGS UNDER WAY",
                &["NAMESPACE", "NAME", "MODEL", "PHASE", "WORKERS", "MESSAGE"],
                &self.trainings,
                |t| {
                    [&t.namespace, &t.name, &t.model, &t.phase, &t.workers, &t.message]
                        .map(Clone::clone)
                        .to_vec()
                },
            );
        }
        let Nodes {
            all,
            ready,
            containers,
            not_ready,
        } = &self.nodes;
        let nodes = format!("NODES: {ready} of {all} ready, {containers} containers traced");
        section(
            &mut lines,
            &nodes,
            &["NAME", "REASON", "MESSAGE"],
            not_ready,
            |n| vec![n.name.clone(), n.reason.clone(), n.message.clone()],
        );
        if !self.attention.is_empty() {
            let shown = Part {
                items: self.attention.iter().take(ATTENTION).collect(),
                unseen: None,
                unreadable: vec![],
            };
            section(
                &mut lines,
                "TO LOOK AT",
                &["KIND", "NAMESPACE", "NAME", "CONDITION", "REASON", "MESSAGE"],
                &shown,
                |a| {
                    [
                        &a.kind,
                        &a.namespace,
                        &a.name,
                        &a.condition,
                        &a.reason,
                        &a.message,
                    ]
                    .map(Clone::clone)
                    .to_vec()
                },
            );
            if let more @ 1.. = self.attention.len().saturating_sub(ATTENTION) {
                lines.push(format!("  and {more} more: -o json has them all"));
            }
        }
        section(
            &mut lines,
            "LAST ALERTS",
            &["AT", "NAMESPACE", "POD", "TIMES", "WHAT"],
            &self.alerts,
            |a| {
                let at = a.at.map_or_else(String::new, |at| say::time(at.as_millisecond()));
                let times = a.times.to_string();
                vec![at, a.namespace.clone(), a.pod.clone(), times, a.note.clone()]
            },
        );
        lines
    }
}

/// A title, and a table of what is below it; `none` where there is nothing.
fn section<T>(
    lines: &mut Vec<String>,
    title: &str,
    head: &[&str],
    part: &Part<T>,
    row: impl Fn(&T) -> Vec<String>,
) {
    let bold = Style::new().bold();
    if !lines.is_empty() {
        lines.push(String::new());
    }
    lines.push(format!("{bold}{title}{bold:#}"));
    if let Some(why) = &part.unseen {
        lines.push(format!("  cannot be seen: {}", say::plain(why)));
        return;
    }
    for which in &part.unreadable {
        lines.push(format!("  cannot be read: {}", say::plain(which)));
    }
    if part.items.is_empty() {
        if part.unreadable.is_empty() {
            lines.push("  none".to_owned());
        }
        return;
    }
    // What objects say is not ours: nothing of it may move a cursor.
    let clean = |cell: String| say::plain(&cell).into_owned();
    let mut rows = vec![head.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()];
    rows.extend(
        part.items
            .iter()
            .map(|item| row(item).into_iter().map(clean).collect()),
    );
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    for row in &rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        lines.push(format!("  {}", line.trim_end()));
    }
}
