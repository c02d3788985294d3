//! What is held of the windows that a model is trained on until all files are read: they may be in any order, and what came
//! before a window is known of it. A window's sequences as a model looks at them take a fraction of what was written.

use vigia_model::context::{Context, Past};
use vigia_model::schema::Schema;
use vigia_model::syscalls::Fingerprint;
use vigia_model::window::Window;
use vigia_trainer::data::{MAX_HELD, MAX_ROWS, RowError, Rows};

use crate::input::Seen;
use crate::record::Edge;

/// A window.
pub struct Brief {
    /// Of which file, from 0.
    pub file: usize,
    /// What was counted.
    pub window: Window,
    /// Its sequences; the windows before come once all are in order.
    pub context: Context,
    /// Of what.
    pub target: String,
    /// See [`Seen::edge`].
    pub edge: Option<Edge>,
    /// See [`Seen::capture`].
    pub capture: Option<Fingerprint>,
}

impl Brief {
    /// Of a window that was read.
    pub fn of(seen: Seen, file: usize, schema: &Schema) -> Self {
        let mut context = seen.context(schema, &Past::default());
        context.shrink_to_fit();
        Self {
            file,
            context,
            window: seen.window,
            target: seen.target,
            edge: seen.edge,
            capture: seen.capture,
        }
    }

    /// The order of time.
    fn when(&self) -> (u64, u32, &str) {
        (self.window.started_ms, self.window.duration_ms, &self.target)
    }

    fn is(&self, other: &Self) -> bool {
        self.window == other.window
            && self.context == other.context
            && self.target == other.target
            && self.edge == other.edge
            && self.capture == other.capture
    }

    /// Bytes that it takes.
    fn held(&self) -> usize {
        size_of::<Self>()
            + size_of_val(&*self.window.calls)
            + size_of_val(self.context.grams())
            + self.target.len()
    }
}

/// Windows of all files, as far as there is room for them.
#[derive(Default)]
pub struct Briefs {
    all: Vec<Brief>,
    held: usize,
    beside: usize,
}

impl Briefs {
    /// None yet, beside what lies in memory already.
    pub fn beside(rows: &Rows) -> Self {
        let (beside, held) = rows.taken();
        Self {
            held,
            beside,
            all: Vec::new(),
        }
    }

    /// Takes one more.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn take(&mut self, brief: Brief) -> Result<(), RowError> {
        self.held = self.held.saturating_add(brief.held());
        if self.beside + self.all.len() >= MAX_ROWS {
            return Err(RowError::TooMany);
        }
        if self.held > MAX_HELD {
            return Err(RowError::TooLarge);
        }
        self.all.push(brief);
        Ok(())
    }

    /// All of them in the order of time, each once, and how many were given again.
    pub fn in_order(mut self) -> (Vec<Brief>, usize) {
        let given = self.all.len();
        self.all.sort_by(|a, b| a.when().cmp(&b.when()));
        self.all.dedup_by(|a, b| a.is(b));
        let again = given - self.all.len();
        (self.all, again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigia_agent::window::Sequences;
    use vigia_model::syscalls::Arch;
    use vigia_model::window::Calls;

    fn brief(started_ms: u64, file: usize) -> Brief {
        let call = Calls {
            nr: 0,
            count: 1,
            errors: 0,
        };
        let seen = Seen {
            window: Window::new(Arch::NATIVE, started_ms, 1000, [call]),
            target: "t".to_owned(),
            sequences: Sequences::new(),
            edge: None,
            capture: None,
        };
        Brief::of(seen, file, Schema::syscalls_v1())
    }

    #[test]
    fn whichever_way_files_are_given_windows_are_in_order_and_once() {
        let mut briefs = Briefs::default();
        for (started_ms, file) in [(3000, 0), (1000, 0), (2000, 1), (3000, 1)] {
            briefs.take(brief(started_ms, file)).expect("room");
        }
        let (all, again) = briefs.in_order();
        let starts: Vec<u64> = all.iter().map(|brief| brief.window.started_ms).collect();
        assert_eq!((starts, again), (vec![1000, 2000, 3000], 1));
    }

    #[test]
    fn there_is_an_end_to_what_is_held() {
        let mut briefs = Briefs {
            held: MAX_HELD - brief(0, 0).held(),
            ..Briefs::default()
        };
        assert_eq!(briefs.take(brief(1, 0)), Ok(()));
        let full = briefs.take(brief(2, 0)).expect_err("no room");
        assert_eq!(full, RowError::TooLarge);
        assert!(full.to_string().contains("more than 4 GiB of memory"), "{full}");
    }
}
