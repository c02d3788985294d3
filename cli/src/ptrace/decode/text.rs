//! Numbers, flags and buffers as text.

use super::super::memory::Memory;

/// Bytes of a buffer that are shown, as with strace.
const SHOWN: usize = 32;

/// Names of values or of bits.
pub type Table = &'static [(u64, &'static str)];

/// In hexadecimal, 0 as it is.
pub fn hex(value: u64) -> String {
    if value == 0 {
        "0".to_owned()
    } else {
        format!("{value:#x}")
    }
}

/// An address.
pub fn pointer(value: u64) -> String {
    if value == 0 {
        "NULL".to_owned()
    } else {
        format!("{value:#x}")
    }
}

/// A number in a base and, in parentheses, what it means.
pub fn prefixed(value: u64, base: u32, means: impl Fn(u64) -> String) -> String {
    let number = if base == 16 {
        format!("{value:#x}")
    } else {
        value.to_string()
    };
    format!("{number} (flags {})", means(value))
}

/// Bits by their names, what is left in hexadecimal, and `none` for 0.
pub fn bits(value: u64, table: Table, none: &str) -> String {
    let (mut names, mut left) = (Vec::new(), value);
    for (bit, name) in table {
        if *bit != 0 && left & bit == *bit {
            names.push((*name).to_owned());
            left &= !bit;
        }
    }
    if left != 0 {
        names.push(format!("{left:#x}"));
    }
    if names.is_empty() {
        none.to_owned()
    } else {
        names.join("|")
    }
}

/// A value by its name, or as a number.
pub fn one(value: i64, table: Table) -> String {
    table
        .iter()
        .find(|(known, _)| known.cast_signed() == value)
        .map_or_else(|| value.to_string(), |(_, name)| (*name).to_owned())
}

/// A path, whole.
pub fn path(address: u64, memory: Memory) -> String {
    match memory.text(address) {
        Some((bytes, whole)) => quoted(&bytes, !whole),
        None => pointer(address),
    }
}

/// The beginning of a buffer.
pub fn buffer(address: u64, length: usize, memory: Memory) -> String {
    if address == 0 {
        return pointer(address);
    }
    let bytes = memory.bytes(address, length.min(SHOWN));
    if bytes.len() < length.min(SHOWN) {
        return pointer(address);
    }
    quoted(&bytes, length > SHOWN)
}

/// In quotes, with C's escapes.
pub fn quoted(bytes: &[u8], more: bool) -> String {
    let mut text = String::with_capacity(bytes.len() + 5);
    text.push('"');
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            b'\r' => text.push_str("\\r"),
            0x0b => text.push_str("\\v"),
            0x0c => text.push_str("\\f"),
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(*byte)),
            // Three digits where one that follows would be taken for part of it.
            _ if bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => text.push_str(&format!("\\{byte:03o}")),
            _ => text.push_str(&format!("\\{byte:o}")),
        }
    }
    text.push('"');
    if more {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_escaped_as_in_c() {
        assert_eq!(
            quoted(b"\x7fELF\x02\x010\n\"\\", true),
            r#""\177ELF\2\0010\n\"\\"..."#
        );
        assert_eq!(quoted(b"", false), "\"\"");
    }

    #[test]
    fn flags_have_names_and_the_rest_is_a_number() {
        const TABLE: Table = &[(1, "A"), (4, "B")];
        assert_eq!(bits(5, TABLE, "0"), "A|B");
        assert_eq!(bits(13, TABLE, "0"), "A|B|0x8");
        assert_eq!(bits(0, TABLE, "NONE"), "NONE");
        assert_eq!((one(4, TABLE), one(-2, TABLE)), ("B".to_owned(), "-2".to_owned()));
    }

    #[test]
    fn what_cannot_be_read_is_its_address() {
        let own = Memory(std::process::id().cast_signed());
        assert_eq!(path(0, own), "NULL");
        assert_eq!(buffer(0x10, 8, own), "0x10");
        let long = [b'x'; 64];
        assert_eq!(
            buffer(long.as_ptr() as u64, 64, own),
            format!("\"{}\"...", "x".repeat(32))
        );
    }
}
