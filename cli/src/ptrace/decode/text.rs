//! Numbers, flags and buffers as text.

use super::super::memory::Memory;

/// Bytes of a buffer that are shown, as with strace.
const SHOWN: usize = 32;

/// Names of values or of bits.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// What they all begin with, for those that are not known; empty where they begin with nothing of their own.
    pub prefix: &'static str,
    pub rows: &'static [(u64, &'static str)],
}

impl Table {
    fn unknown(self, value: u64) -> String {
        if self.prefix.is_empty() {
            return hex(value);
        }
        format!("{} /* {}_??? */", hex(value), self.prefix)
    }
}

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

/// Permissions.
pub fn octal(value: u64) -> String {
    format!("0{value:0>2o}")
}

/// Bits by their names, what is left in hexadecimal, and `none` for 0.
pub fn bits(value: u64, table: Table, none: &str) -> String {
    let (mut names, mut left) = (Vec::new(), value);
    for (bit, name) in table.rows {
        if *bit != 0 && left & bit == *bit {
            names.push((*name).to_owned());
            left &= !bit;
        }
    }
    match (names.is_empty(), left) {
        (true, 0) => none.to_owned(),
        (true, left) => table.unknown(left),
        (false, 0) => names.join("|"),
        (false, left) => format!("{}|{left:#x}", names.join("|")),
    }
}

/// Bits that come after something else: nothing for 0, and only a number for what is not known.
pub fn further_bits(value: u64, table: Table) -> String {
    bits(value, Table { prefix: "", ..table }, "")
}

/// A value by its name, or as a number.
pub fn one(value: u32, table: Table) -> String {
    let known = table.rows.iter().find(|(known, _)| *known == u64::from(value));
    known.map_or_else(|| table.unknown(value.into()), |(_, name)| (*name).to_owned())
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
            _ if bytes.get(at + 1).is_some_and(|next| matches!(next, b'0'..=b'7')) => {
                text.push_str(&format!("\\{byte:03o}"))
            }
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
        assert_eq!(quoted(b"\x108\x107", false), r#""\208\0207""#);
    }

    #[test]
    fn flags_have_names_and_the_rest_is_a_number() {
        const TABLE: Table = Table {
            prefix: "X",
            rows: &[(1, "X_A"), (4, "X_B"), (0x8000_0000, "X_HIGH")],
        };
        assert_eq!(bits(5, TABLE, "0"), "X_A|X_B");
        assert_eq!(bits(13, TABLE, "0"), "X_A|X_B|0x8");
        assert_eq!(bits(8, TABLE, "0"), "0x8 /* X_??? */");
        assert_eq!(bits(0x8000_0000, TABLE, "0"), "X_HIGH");
        assert_eq!(
            [0, 1, 8].map(|value| further_bits(value, TABLE)),
            ["", "X_A", "0x8"]
        );
        assert_eq!(bits(0, TABLE, "NONE"), "NONE");
        assert_eq!(
            [4, 0x8000_0000, 0xffff_fffe].map(|value| one(value, TABLE)),
            ["X_B", "X_HIGH", "0xfffffffe /* X_??? */"]
        );
        assert_eq!([0, 5, 0o644, 0o1777].map(octal), ["000", "005", "0644", "01777"]);
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
