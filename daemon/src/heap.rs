//! How much memory the C library's allocator keeps to itself.
//!
//! By default it has a heap for each thread that allocates, takes what is large from the heap once something as large was given back, and
//! keeps what is free at the end. otad has few allocations, some of them large and short-lived, on threads that come and go: of 17 MiB that
//! an install with a delta took in all its processes, 2 were that.
#![allow(
    unsafe_code,
    reason = "mallopt(3) has no safe wrapper; it is called here, before there is a second thread, and nowhere else"
)]

#[cfg(target_env = "gnu")]
use nix::libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, c_int, mallopt};

/// What is at least as large has pages of its own, which go back at once; and no more than this stays free at the end of the heap.
#[cfg(target_env = "gnu")]
const LARGE_BYTES: c_int = 64 * 1024;

/// Has the allocator keep little. To be called before anything else is done.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    for (what, value) in [(M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, LARGE_BYTES), (M_TRIM_THRESHOLD, LARGE_BYTES)]
    {
        // SAFETY: it takes two numbers, and no other thread runs yet. A value that it refuses leaves things as they are.
        unsafe { mallopt(what, value) };
    }
}
