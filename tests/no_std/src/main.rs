//! Compiles only while `smp-proto` and everything below it do without std.
#![no_std]
#![no_main]

extern crate alloc;
// Shows that this check can fail: with this feature it must not compile (E0152).
#[cfg(feature = "leak")]
extern crate std;

use core::alloc::{GlobalAlloc, Layout};

use smp_proto as _;

/// An allocator that never has memory: `alloc` asks for one to exist, and nothing here runs.
struct NoMemory;

unsafe impl GlobalAlloc for NoMemory {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }
    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static NO_MEMORY: NoMemory = NoMemory;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
