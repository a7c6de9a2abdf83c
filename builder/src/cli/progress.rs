//! Events on stderr: bars on a terminal, plain lines elsewhere, nothing but errors with `--quiet`.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::event::{Event, Level, Unit};

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Talk {
    /// Warnings.
    Quiet,
    /// What is being done.
    Normal,
    /// Every detail.
    Verbose,
}

/// The one place that writes progress.
pub(super) struct Progress {
    talk: Talk,
    bars: Option<MultiProgress>,
    running: Mutex<BTreeMap<u64, ProgressBar>>,
}

impl Progress {
    /// Bars only where stderr is a terminal and somebody wants to be told.
    pub(super) fn new(talk: Talk) -> Self {
        let bars = (talk > Talk::Quiet && std::io::stderr().is_terminal()).then(MultiProgress::new);
        Self { talk, bars, running: Mutex::default() }
    }

    /// Shows one event.
    pub(super) fn show(&self, event: Event) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { task, name, unit, total } => match &self.bars {
                Some(bars) => {
                    let bar = bars.add(match total {
                        Some(total) => ProgressBar::new(total).with_style(style(unit)),
                        None => ProgressBar::new_spinner(),
                    });
                    bar.set_message(name);
                    bar.enable_steady_tick(Duration::from_millis(120));
                    running.insert(task, bar);
                }
                // Without a terminal each file of a large closure would be a line: only with -v.
                None if self.talk >= Talk::Verbose => anstream::eprintln!("{name}"),
                None => {}
            },
            Event::Advanced { task, done } => {
                if let Some(bar) = running.get(&task) {
                    bar.set_position(done);
                }
            }
            Event::Finished { task } => {
                if let Some(bar) = running.remove(&task) {
                    bar.finish_and_clear();
                }
            }
            Event::Said { level, text } => {
                let shown = match level {
                    Level::Detail => self.talk >= Talk::Verbose,
                    Level::Note => self.talk >= Talk::Normal,
                    Level::Warning => true,
                };
                if shown {
                    self.line(&text);
                }
            }
        }
    }

    /// Writes one line above the bars.
    pub(super) fn line(&self, text: &str) {
        match &self.bars {
            // A failed write to stderr has nowhere to be told.
            Some(bars) => drop(bars.println(text)),
            None => anstream::eprintln!("{text}"),
        }
    }
}

fn style(unit: Unit) -> ProgressStyle {
    let template = match unit {
        Unit::Bytes => "{bar:24} {bytes:>10}/{total_bytes:<10} {msg}",
        Unit::Items => "{bar:24} {pos:>5}/{len:<5} {msg}",
    };
    ProgressStyle::with_template(template).expect("the template is a constant that parses")
}
