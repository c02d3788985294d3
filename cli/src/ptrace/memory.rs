//! A task's memory, read with bounds: what lies there is the task's choice.

use super::sys;

/// Longest text that is read.
const MAX_TEXT: usize = 4096;

/// Memory of one task.
#[derive(Debug, Clone, Copy)]
pub struct Memory(pub i32);

impl Memory {
    /// As many bytes as can be read, up to `length`.
    pub fn bytes(self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length.min(MAX_TEXT)];
        let read = sys::read(self.0, address, &mut bytes);
        bytes.truncate(read);
        bytes
    }

    /// Text up to its NUL, and whether that was found.
    pub fn text(self, address: u64) -> Option<(Vec<u8>, bool)> {
        const STEP: u64 = 256;
        let mut text = Vec::new();
        let mut at = address;
        while text.len() < MAX_TEXT {
            // Not across a page: the next one may not be there.
            let step = (STEP - at % STEP) as usize;
            let bytes = self.bytes(at, step);
            if let Some(end) = bytes.iter().position(|b| *b == 0) {
                text.extend_from_slice(&bytes[..end]);
                return Some((text, true));
            }
            text.extend_from_slice(&bytes);
            if bytes.len() < step {
                return (!text.is_empty()).then_some((text, false));
            }
            at = at.checked_add(bytes.len() as u64)?;
        }
        Some((text, false))
    }

    /// Some words.
    pub fn words<const N: usize>(self, address: u64) -> Option<[u64; N]> {
        let bytes = self.bytes(address, N * 8);
        let mut words = [0; N];
        let (whole, _) = bytes.as_chunks::<8>();
        if whole.len() < N {
            return None;
        }
        words
            .iter_mut()
            .zip(whole)
            .for_each(|(word, bytes)| *word = u64::from_ne_bytes(*bytes));
        Some(words)
    }

    /// Some half words.
    pub fn halves<const N: usize>(self, address: u64) -> Option<[u32; N]> {
        let bytes = self.bytes(address, N * 4);
        let mut halves = [0; N];
        let (whole, _) = bytes.as_chunks::<4>();
        if whole.len() < N {
            return None;
        }
        halves
            .iter_mut()
            .zip(whole)
            .for_each(|(half, bytes)| *half = u32::from_ne_bytes(*bytes));
        Some(halves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_end_at_their_nul_or_at_a_bound() {
        let own = Memory(std::process::id().cast_signed());
        let text = b"words\0more";
        assert_eq!(own.text(text.as_ptr() as u64), Some((b"words".to_vec(), true)));
        let long = vec![b'x'; 3 * MAX_TEXT];
        let (read, whole) = own.text(long.as_ptr() as u64).expect("there");
        assert!(!whole && read.len() >= MAX_TEXT && read.len() < MAX_TEXT + 256);
        assert_eq!(own.text(8), None);
        assert_eq!(own.text(u64::MAX), None);
        let words = [7u64, 8];
        assert_eq!(own.words(words.as_ptr() as u64), Some(words));
        assert_eq!(own.words::<1>(0), None);
    }
}
