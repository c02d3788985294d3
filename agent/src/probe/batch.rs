//! The few map commands of the bpf system call that the probe needs, batched ones among them.
//!
//! aya reads a per-CPU map one key at a time, which for 12,000 counters is tens of milliseconds of CPU in each
//! drain; `BPF_MAP_LOOKUP_BATCH` (Linux 5.6) does it in about two.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd};

use aya::maps::MapData;

use super::kernel::last_error;
use super::tally::{self, place_size, places_of};

const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const MAP_LOOKUP_BATCH: libc::c_int = 24;

/// Bytes that the kernel wants for the position of a batch in a hash map: its bucket's number.
type Position = u32;

/// Entries asked for at once; more are asked for only where one bucket holds more.
const BATCH: usize = 1024;
/// Beyond this, the kernel does not keep its word on bucket sizes.
const BATCH_LIMIT: usize = 1 << 20;

/// `union bpf_attr` as commands on one element read it.
#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `union bpf_attr` as commands on batches read it.
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    element_flags: u64,
    flags: u64,
}

/// Runs a command of the bpf system call.
///
/// # Safety
///
/// `attr` must be laid out as the command reads it, and every address in it must point to memory that the command
/// may read or write as far as the map's key and value sizes and the count say, for as long as the call lasts.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<()> {
    // SAFETY: the kernel reads and writes at most size_of::<T>() bytes of `attr`, which is borrowed uniquely; what
    // `attr` points to is the caller's promise.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if done < 0 { Err(last_error()) } else { Ok(()) }
}

/// Sets a map's element.
pub(super) fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut attr = ElementAttr {
        map_fd: map.as_raw_fd().cast_unsigned(),
        key: key.as_ptr() as u64,
        value: value.as_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: both slices outlive the call and are only read; callers pass them in the map's key and value sizes.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) }
}

/// Deletes a map's element; one that is gone already is no error.
pub(super) fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<()> {
    let mut attr = ElementAttr {
        map_fd: map.as_raw_fd().cast_unsigned(),
        key: key.as_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: the key outlives the call and is only read; callers pass it in the map's key size.
    match unsafe { bpf(MAP_DELETE_ELEM, &mut attr) } {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        done => done,
    }
}

/// Deletes the elements of a plain hash map with 4-byte values for which `keep` is false.
pub(super) fn retain(
    map: BorrowedFd<'_>,
    key_size: usize,
    mut keep: impl FnMut(&[u8], [u8; 4]) -> bool,
) -> io::Result<()> {
    let mut stale: Vec<u8> = Vec::new();
    read(map, key_size, 4, |key, value| {
        if !keep(key, [value[0], value[1], value[2], value[3]]) {
            stale.extend_from_slice(key);
        }
    })?;
    stale.chunks_exact(key_size).try_for_each(|key| delete(map, key))
}

/// Every element of a plain hash map whose values are a multiple of 4 bytes.
pub(super) fn read(
    map: BorrowedFd<'_>,
    key_size: usize,
    value_size: usize,
    each: impl FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    read_batches(map, key_size, value_size, BATCH, &mut keys, &mut values, each)
}

/// Reads per-CPU maps, with buffers kept from one drain to the next.
pub(super) struct PerCpuReader {
    cpus: usize,
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl PerCpuReader {
    pub(super) fn new(cpus: usize) -> Self {
        Self {
            cpus,
            keys: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Every element of a per-CPU hash map with 8-byte keys and `size` bytes (a multiple of 8) for each CPU: the
    /// key, and the values of all CPUs one after the other.
    pub(super) fn read(
        &mut self,
        map: BorrowedFd<'_>,
        size: usize,
        each: impl FnMut(&[u8], &[u8]),
    ) -> io::Result<()> {
        let value_size = size * self.cpus;
        // With hundreds of CPUs a full batch would be megabytes.
        let batch = (BATCH * 64 / value_size.max(64)).max(16);
        read_batches(map, 8, value_size, batch, &mut self.keys, &mut self.values, each)
    }

    /// Every element of a per-CPU hash map as [`Self::read`] gives it, and before them those that have places in a
    /// per-CPU array of `groups` elements, one CPU's at a time.
    pub(super) fn read_all(
        &mut self,
        map: &MapData,
        places: &MapData,
        groups: u32,
        size: usize,
        mut each: impl FnMut(&[u8], &[u8]),
    ) -> io::Result<()> {
        let count = places_of(size);
        for group in 0..groups {
            let element = self.element(places.fd().as_fd(), group, count * place_size(size))?;
            tally::places(element, count, size, &mut each);
        }
        self.read(map.fd().as_fd(), size, each)
    }

    /// One element of a per-CPU array with `size` bytes (a multiple of 8) for each CPU: one value after the other.
    pub(super) fn element(&mut self, map: BorrowedFd<'_>, index: u32, size: usize) -> io::Result<&[u8]> {
        self.values.resize(size * self.cpus, 0);
        let key = index.to_ne_bytes();
        let mut attr = ElementAttr {
            map_fd: map.as_raw_fd().cast_unsigned(),
            key: key.as_ptr() as u64,
            value: self.values.as_mut_ptr() as u64,
            ..Default::default()
        };
        // SAFETY: the key has the array's key size (4); the buffer holds `size` bytes for every possible CPU, which
        // is what the kernel writes for a per-CPU value that callers state the size of. Both outlive the call.
        unsafe { bpf(MAP_LOOKUP_ELEM, &mut attr) }?;
        Ok(&self.values[..size * self.cpus])
    }

    /// Sets one element of a per-CPU array to zeros, on each CPU.
    pub(super) fn clear(&mut self, map: BorrowedFd<'_>, index: u32, size: usize) -> io::Result<()> {
        self.values.clear();
        self.values.resize(size * self.cpus, 0);
        update(map, &index.to_ne_bytes(), &self.values)
    }

    /// One element of a per-CPU array of u64, summed over the CPUs.
    pub(super) fn sum(&mut self, map: BorrowedFd<'_>, index: u32) -> io::Result<u64> {
        let values = self.element(map, index, 8)?;
        Ok(values
            .chunks_exact(8)
            .map(|cpu| word(cpu, 0))
            .fold(0, u64::wrapping_add))
    }
}

pub(super) fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes are eight bytes"))
}

pub(super) fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes are four bytes"))
}

/// Reads a hash map in batches of whole buckets. Elements that come or go meanwhile may or may not be seen; others
/// are seen once. `value_size` is what the kernel writes for one key: for per-CPU maps, all CPUs' values.
fn read_batches(
    map: BorrowedFd<'_>,
    key_size: usize,
    value_size: usize,
    batch: usize,
    keys: &mut Vec<u8>,
    values: &mut Vec<u8>,
    mut each: impl FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    let mut room = batch;
    let mut position: Option<Position> = None;
    loop {
        keys.resize(room * key_size, 0);
        values.resize(room * value_size, 0);
        let mut next: Position = 0;
        let mut attr = BatchAttr {
            in_batch: position
                .as_ref()
                .map_or(0, |position| std::ptr::from_ref(position) as u64),
            out_batch: std::ptr::from_mut(&mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: u32::try_from(room).map_err(io::Error::other)?,
            map_fd: map.as_raw_fd().cast_unsigned(),
            ..Default::default()
        };
        // SAFETY: the buffers hold `count` keys and values of the sizes that the caller states for this map, and
        // both positions are the 4 bytes that a hash map's batch position takes; all outlive the call.
        let done = unsafe { bpf(MAP_LOOKUP_BATCH, &mut attr) };
        let last = match done {
            Ok(()) => false,
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT) => true,
                // One bucket holds more than fits: ask again from the same position with more room.
                Some(libc::ENOSPC) if room < BATCH_LIMIT => {
                    room *= 2;
                    continue;
                }
                _ => return Err(error),
            },
        };
        let read = (attr.count as usize).min(room);
        for (key, value) in keys
            .chunks_exact(key_size)
            .zip(values.chunks_exact(value_size))
            .take(read)
        {
            each(key, value);
        }
        if last {
            return Ok(());
        }
        position = Some(next);
    }
}
