//! W3C trace context, version 00: which trace something is a part of, and which of its spans.
//!
//! <https://www.w3.org/TR/trace-context/#traceparent-header>. Ids are not drawn but derived from what they are ids of, so
//! that an operator that was killed between saying a span and writing that it did says the same span again.

use std::fmt;
use std::str::FromStr;

use kube::{Resource, ResourceExt};
use sha2::{Digest as _, Sha256};
use vigia_crds::TRACEPARENT;

use crate::events::{Note, Severity};

/// Characters of version 00.
const LENGTH: usize = 55;

/// A span of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace: [u8; 16],
    span: [u8; 8],
    sampled: bool,
}

/// The text is no trace context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is no W3C trace context: write 00-<32 hexadecimal digits>-<16 hexadecimal digits>-01, in lower case and neither \
     of the two all zeros"
)]
pub struct NoTraceParent;

impl NoTraceParent {
    /// What there is to say of an object whose annotation is none. `begun` is what has a trace of its own instead.
    pub fn note<K>(self, object: &K, begun: &str, action: &'static str, key: String) -> Note
    where
        K: Resource<DynamicType = ()>,
    {
        Note {
            severity: Severity::Warning,
            reason: "TraceparentRefused",
            action,
            note: format!(
                "the annotation {TRACEPARENT} of {} {} is left aside, and {begun} is a trace of its own: {self}",
                K::kind(&()),
                object.name_any()
            ),
            key,
        }
    }
}

impl TraceParent {
    /// What an object's annotation says that it is a part of.
    ///
    /// # Errors
    /// It says nothing that can be understood.
    pub fn annotated(object: &impl ResourceExt) -> Result<Option<Self>, NoTraceParent> {
        let text = object.annotations().get(TRACEPARENT);
        text.map(|text| text.parse()).transpose()
    }

    /// What a status remembers, where it is one.
    pub fn remembered(text: Option<&str>) -> Option<Self> {
        text?.parse().ok()
    }

    /// The root of a trace, of what these texts name together.
    pub fn root(of: &[&str]) -> Self {
        let hash = hash(&[], of);
        Self {
            trace: known(hash.0),
            span: known(hash.1),
            sampled: true,
        }
    }

    /// The span of the same trace that these texts name together under this one.
    pub fn child(self, of: &[&str]) -> Self {
        let under: Vec<u8> = [&self.trace[..], &self.span].concat();
        Self {
            span: known(hash(&under, of).1),
            ..self
        }
    }

    /// The trace.
    pub const fn trace_id(&self) -> [u8; 16] {
        self.trace
    }

    /// The span.
    pub const fn span_id(&self) -> [u8; 8] {
        self.span
    }

    /// Whether who began the trace wants to see it.
    pub const fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// Whether both are of one trace.
    pub fn is_beside(&self, other: &Self) -> bool {
        self.trace == other.trace
    }
}

/// Texts cannot be shifted against each other.
fn hash(under: &[u8], of: &[&str]) -> ([u8; 16], [u8; 8]) {
    let mut hash = Sha256::new();
    hash.update(under);
    for text in of {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let (mut trace, mut span) = ([0; 16], [0; 8]);
    trace.copy_from_slice(&hash[..16]);
    span.copy_from_slice(&hash[16..24]);
    (trace, span)
}

/// All zeros is no id.
fn known<const N: usize>(mut id: [u8; N]) -> [u8; N] {
    if id == [0; N] {
        id[N - 1] = 1;
    }
    id
}

fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

fn parse(text: &[u8]) -> Option<TraceParent> {
    let (known, more) = text.split_at_checked(LENGTH)?;
    let [version] = hex(&known[..2])?;
    // A later version may say more behind another dash, and means the same by what is before it.
    let ends_well = match version {
        0 => more.is_empty(),
        0xff => false,
        _ => more.is_empty() || more[0] == b'-',
    };
    let dashes = [2, 35, 52].iter().all(|&at| known[at] == b'-');
    let (trace, span, [flags]) = (hex(&known[3..35])?, hex(&known[36..52])?, hex(&known[53..])?);
    (ends_well && dashes && trace != [0; 16] && span != [0; 8]).then_some(TraceParent {
        trace,
        span,
        sampled: flags & 1 == 1,
    })
}

impl FromStr for TraceParent {
    type Err = NoTraceParent;

    fn from_str(text: &str) -> Result<Self, NoTraceParent> {
        parse(text.as_bytes()).ok_or(NoTraceParent)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            u128::from_be_bytes(self.trace),
            u64::from_be_bytes(self.span),
            u8::from(self.sampled)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_the_standard_shows_is_read_and_written() {
        let read: TraceParent = GOOD.parse().expect("good");
        assert_eq!(read.to_string(), GOOD);
        assert!(read.is_sampled());
        let unsampled: TraceParent = GOOD.replace("-01", "-00").parse().expect("good");
        assert!(!unsampled.is_sampled() && !unsampled.child(&["a"]).is_sampled());
        // Of a later version what is known is taken, of this one nothing may follow.
        for later in ["cc", "01"] {
            let later = format!("{later}{}-more", &GOOD[2..]);
            assert_eq!(later.parse(), Ok(read));
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let zero = |from, to| format!("{}{}{}", &GOOD[..from], "0".repeat(to - from), &GOOD[to..]);
        for bad in [
            String::new(),
            GOOD.to_uppercase(),
            format!("{GOOD}-more"),
            format!("{GOOD} "),
            format!(" {GOOD}"),
            format!("ff{}", &GOOD[2..]),
            format!("cc{}.more", &GOOD[2..]),
            GOOD.replace('-', "_"),
            GOOD[..54].to_owned(),
            zero(3, 35),
            zero(36, 52),
            format!("00-{}é-00f067aa0ba902b7-01", "a".repeat(30)),
        ] {
            assert_eq!(bad.parse::<TraceParent>(), Err(NoTraceParent), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_but_the_form_is_taken_and_nothing_panics(text in any::<String>()) {
            let form = |t: &str| t.is_ascii() && t.len() >= LENGTH && t.as_bytes()[2] == b'-';
            prop_assert!(text.parse::<TraceParent>().is_err() || form(&text));
        }

        #[test]
        fn one_letter_changed_is_another_context_or_none(at in 0usize..LENGTH, to in any::<char>()) {
            let changed: String = GOOD.chars().enumerate().map(|(i, c)| if i == at { to } else { c }).collect();
            prop_assume!(changed != GOOD);
            if let Ok(read) = changed.parse::<TraceParent>() {
                let version_or_flags = !(2..=52).contains(&at);
                prop_assert!(version_or_flags || read.to_string() == changed);
                prop_assert!(to.is_ascii_digit() || ('a'..='f').contains(&to));
            }
        }

        #[test]
        fn what_is_written_is_read(trace in 1u128.., span in 1u64.., sampled: bool) {
            let one = TraceParent { trace: trace.to_be_bytes(), span: span.to_be_bytes(), sampled };
            prop_assert_eq!(one.to_string().parse(), Ok(one));
        }

        #[test]
        fn names_are_told_apart_and_give_the_same_again(
            a in proptest::collection::vec(".{0,4}", 1..4), b in proptest::collection::vec(".{0,4}", 1..4)
        ) {
            let names = |of: &[String]| {
                let of: Vec<&str> = of.iter().map(String::as_str).collect();
                (TraceParent::root(&of), TraceParent::root(&["r"]).child(&of))
            };
            prop_assert_eq!(names(&a) == names(&b), a == b);
            let (root, child) = names(&a);
            prop_assert!(child.is_beside(&TraceParent::root(&["r"])));
            for one in [root, child] {
                prop_assert_eq!(one.to_string().parse(), Ok(one));
            }
        }
    }
}
