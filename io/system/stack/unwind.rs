//! Copying a thread's stack from a signal handler, and unwinding the copy elsewhere.
//!
//! ```text
//!   IDLE ──ask──► ASKED ──handler──► TAKING ──handler──► DONE ──read──► IDLE
//!                   └── no answer in time: withdrawn ──────────────────► IDLE
//! ```
//!
//! The state is what makes a late signal harmless: a handler that does not find ASKED, or is not on
//! the thread that was asked, returns at once. The signal is a real-time one that nobody had a
//! handler for when the first stack was asked for; the program's own stay as they are.

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use std::{ptr, slice};

use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder};

use super::Frame;
use crate::io::system;

/// What is copied at most; calls further out are cut off.
const STACK_MAX: usize = 256 * 1024;
/// Calls that are told at most.
const FRAMES_MAX: usize = 128;
const PAGE: usize = 4096;

/// How long a thread may take to answer, in nanoseconds. One that waits for a device, or has all
/// signals blocked, does not.
const PATIENCE: u64 = 100_000_000;

const IDLE: u32 = 0;
const ASKED: u32 = 1;
const TAKING: u32 = 2;
const DONE: u32 = 3;

/// Where a handler puts what it sees. One for the process, used by one asker at a time.
struct Exchange {
    state: AtomicU32,
    thread: AtomicI32,
    instruction: AtomicU64,
    stack: AtomicU64,
    frame: AtomicU64,
    length: AtomicUsize,
    memory: UnsafeCell<[u8; STACK_MAX]>,
}

// SAFETY: `memory` belongs to the handler that has changed ASKED to TAKING until it says DONE, and
// to who holds `ASKING` otherwise.
unsafe impl Sync for Exchange {}

static EXCHANGE: Exchange = Exchange {
    state: AtomicU32::new(IDLE),
    thread: AtomicI32::new(0),
    instruction: AtomicU64::new(0),
    stack: AtomicU64::new(0),
    frame: AtomicU64::new(0),
    length: AtomicUsize::new(0),
    memory: UnsafeCell::new([0; STACK_MAX]),
};

/// Who may ask.
static ASKING: Mutex<()> = Mutex::new(());

/// A thread's registers, and its stack from its pointer up.
pub(super) struct Copy {
    instruction: u64,
    stack: u64,
    frame: u64,
    memory: Vec<u8>,
}

impl Copy {
    /// The word at an address of the thread.
    fn read(&self, address: u64) -> Result<u64, ()> {
        let offset = address.checked_sub(self.stack).ok_or(())? as usize;
        let bytes = self.memory.get(offset..).and_then(|rest| rest.first_chunk());
        bytes.map(|bytes| u64::from_ne_bytes(*bytes)).ok_or(())
    }
}

/// Takes a copy of what a thread of this process has on its stack.
pub(super) fn capture(thread: c_int) -> Result<Copy, &'static str> {
    let _one = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(signal) = signal() else { return Err("every real-time signal is in use") };
    // Asked too late before: the handler has come to its end meanwhile, or it never will.
    if EXCHANGE.state.load(Ordering::Acquire) == TAKING {
        return Err("a thread that was asked before has stopped in its answer");
    }
    EXCHANGE.thread.store(thread, Ordering::Relaxed);
    EXCHANGE.state.store(ASKED, Ordering::Release);
    // SAFETY: plain numbers. The worst that can be wrong with them is told.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) };
    if sent != 0 {
        EXCHANGE.state.store(IDLE, Ordering::Relaxed);
        return Err("its thread is gone");
    }
    let end = system::now() + PATIENCE;
    while EXCHANGE.state.load(Ordering::Acquire) != DONE {
        if system::now() > end && withdraw() {
            return Err("it did not answer a signal: it waits for a device, or blocks signals");
        }
        if system::now() > end + 10 * PATIENCE {
            return Err("it has stopped in its answer");
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    let length = EXCHANGE.length.load(Ordering::Relaxed);
    let mut memory = Vec::with_capacity(length);
    // SAFETY: DONE: the handler has written so many bytes, and will not write again.
    unsafe {
        ptr::copy_nonoverlapping(EXCHANGE.memory.get().cast(), memory.as_mut_ptr(), length);
        memory.set_len(length);
    }
    let copy = Copy {
        instruction: EXCHANGE.instruction.load(Ordering::Relaxed),
        stack: EXCHANGE.stack.load(Ordering::Relaxed),
        frame: EXCHANGE.frame.load(Ordering::Relaxed),
        memory,
    };
    EXCHANGE.state.store(IDLE, Ordering::Release);
    Ok(copy)
}

/// Takes the question back. `false`: it is being answered.
fn withdraw() -> bool {
    let state = &EXCHANGE.state;
    state.compare_exchange(ASKED, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// The signal that asks, with its handler in place.
fn signal() -> Option<c_int> {
    static SIGNAL: OnceLock<Option<c_int>> = OnceLock::new();
    *SIGNAL.get_or_init(|| (libc::SIGRTMIN()..=libc::SIGRTMAX()).rev().find(|&one| claim(one)))
}

/// Installs the handler, if the signal has none.
fn claim(signal: c_int) -> bool {
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: only asks; the kernel fills `before`, which is plain data and valid when zeroed too.
    let asked = unsafe { libc::sigaction(signal, ptr::null(), before.as_mut_ptr()) };
    // SAFETY: as above.
    if asked != 0 || unsafe { before.assume_init() }.sa_sigaction != libc::SIG_DFL {
        return false;
    }
    // SAFETY: plain data, of which zero is a valid value.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = on_signal as *const () as usize;
    // RESTART: most system calls go on as if nothing had been. ONSTACK: a thread with a stack for
    // handlers has its reasons.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: the action is whole, its empty mask included, and its handler async-signal-safe.
    unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) == 0 }
}

/// The handler: atomic operations and three system calls that touch no memory but their arguments'.
extern "C" fn on_signal(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: errno is this thread's own; the handler interrupts code that may be about to read it.
    // `gettid` takes nothing.
    let (errno, before, here) = unsafe {
        let errno = libc::__errno_location();
        (errno, *errno, libc::syscall(libc::SYS_gettid) as c_int)
    };
    let is_asked = EXCHANGE.thread.load(Ordering::Relaxed) == here;
    let states = (Ordering::AcqRel, Ordering::Acquire);
    if is_asked && EXCHANGE.state.compare_exchange(ASKED, TAKING, states.0, states.1).is_ok() {
        // SAFETY: a handler with SA_SIGINFO is given its thread's registers.
        let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let register = |number: c_int| registers[number as usize] as u64;
        let stack = register(libc::REG_RSP);
        EXCHANGE.instruction.store(register(libc::REG_RIP), Ordering::Relaxed);
        EXCHANGE.stack.store(stack, Ordering::Relaxed);
        EXCHANGE.frame.store(register(libc::REG_RBP), Ordering::Relaxed);
        EXCHANGE.length.store(copy_from(stack as usize), Ordering::Relaxed);
        EXCHANGE.state.store(DONE, Ordering::Release);
    }
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// Copies from an address up, as far as there is memory. The kernel copies, page by page, and stops
/// where there is none: a wild stack pointer faults nobody.
fn copy_from(start: usize) -> usize {
    const PIECES: usize = STACK_MAX / PAGE + 1;
    let piece = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
    let mut pieces = [piece; PIECES];
    let (mut at, mut left) = (start, STACK_MAX);
    for piece in &mut pieces {
        let length = (PAGE - at % PAGE).min(left);
        *piece = libc::iovec { iov_base: ptr::without_provenance_mut(at), iov_len: length };
        at = at.saturating_add(length);
        left -= length;
    }
    let into = libc::iovec { iov_base: EXCHANGE.memory.get().cast(), iov_len: STACK_MAX };
    // SAFETY: the kernel writes at most the exchange's memory, which the state has made ours, and
    // reads what can be read of the pieces.
    let copied = unsafe {
        libc::syscall(
            libc::SYS_process_vm_readv,
            libc::getpid(),
            &raw const into,
            1_usize,
            pieces.as_ptr(),
            pieces.len(),
            0_usize,
        )
    };
    usize::try_from(copied).unwrap_or(0)
}

/// The calls of a copy, innermost first, with the names of the functions that were compiled into
/// one another.
pub(super) fn frames(copy: &Copy) -> Vec<Frame> {
    let mut unwinder = UnwinderX86_64::<Vec<u8>>::new();
    modules(|module| unwinder.add_module(module));
    let mut cache = CacheX86_64::<_>::new();
    let mut read = |address| copy.read(address);
    let registers = UnwindRegsX86_64::new(copy.instruction, copy.stack, copy.frame);
    let mut calls = unwinder.iter_frames(copy.instruction, registers, &mut cache, &mut read);
    let mut frames = Vec::new();
    while let Ok(Some(call)) = calls.next() {
        // The resolver looks one byte before what it is given, where a call came from.
        let (address, after) = match call {
            FrameAddress::InstructionPointer(address) => (address, address + 1),
            FrameAddress::ReturnAddress(address) => (address.get(), address.get()),
        };
        let named = frames.len();
        backtrace::resolve(ptr::without_provenance_mut(after as usize), |symbol| {
            frames.push(Frame {
                // `#`: without the hash.
                function: symbol.name().map(|name| format!("{name:#}")),
                file: symbol.filename().map(|file| file.display().to_string()),
                line: symbol.lineno(),
                address: address as usize,
            });
        });
        if frames.len() == named {
            let address = address as usize;
            frames.push(Frame { function: None, file: None, line: None, address });
        }
        if frames.len() >= FRAMES_MAX {
            break;
        }
    }
    frames
}

/// Every module that is loaded: the program, its libraries, the kernel's own page. Their tables are
/// copied while the loader holds them: a module may be unloaded as soon as it does not.
fn modules(mut add: impl FnMut(Module<Vec<u8>>)) {
    let mut each: &mut dyn FnMut(Module<Vec<u8>>) = &mut add;
    // SAFETY: the callback is called before this returns, with what `on_module` expects.
    unsafe { libc::dl_iterate_phdr(Some(on_module), (&raw mut each).cast()) };
}

unsafe extern "C" fn on_module(
    info: *mut libc::dl_phdr_info,
    _: libc::size_t,
    add: *mut c_void,
) -> c_int {
    // SAFETY: the loader's own description, whole for the time of this call.
    let info = unsafe { &*info };
    // SAFETY: `modules` has handed in exactly this.
    let add = unsafe { &mut *add.cast::<&mut dyn FnMut(Module<Vec<u8>>)>() };
    // SAFETY: as above.
    if let Some(module) = unsafe { module_of(info) } {
        add(module);
    }
    0
}

/// # Safety
///
/// Inside the loader's callback, for the module that it describes.
unsafe fn module_of(info: &libc::dl_phdr_info) -> Option<Module<Vec<u8>>> {
    if info.dlpi_phdr.is_null() {
        return None;
    }
    // SAFETY: so many program headers are there, as long as the module is.
    let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let range = |header: &libc::Elf64_Phdr| header.p_vaddr..header.p_vaddr + header.p_memsz;
    let loaded = || headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    let text = range(loaded().find(|header| header.p_flags & libc::PF_X != 0)?);
    let header = range(headers.iter().find(|header| header.p_type == libc::PT_GNU_EH_FRAME)?);
    let base = info.dlpi_addr;
    // SAFETY: a part of a segment that is mapped for reading, as long as the module is.
    let bytes = |range: &Range<u64>| unsafe {
        let start = ptr::with_exposed_provenance::<u8>(base.wrapping_add(range.start) as usize);
        slice::from_raw_parts(start, (range.end - range.start) as usize).to_vec()
    };
    let index = bytes(&header);
    // Version 1, and the table four bytes on, relative to this place: what every linker writes.
    let [1, 0x1b, _, _, offset @ ..] = *index.first_chunk::<8>()? else { return None };
    let start = (header.start + 4).wrapping_add_signed(i64::from(i32::from_ne_bytes(offset)));
    let mut segments = loaded().map(range);
    let segment = segments.find(|segment| segment.contains(&start))?;
    let table = start..segment.end;
    let first = loaded().map(|header| header.p_vaddr).min()?;
    let last = loaded().map(|header| range(header).end).max()?;
    // SAFETY: null, or the loader's string.
    let name = (!info.dlpi_name.is_null()).then(|| unsafe { CStr::from_ptr(info.dlpi_name) });
    let name = name.unwrap_or_default().to_string_lossy().into_owned();
    let sections = ExplicitModuleSectionInfo {
        text_svma: Some(text),
        eh_frame: Some(bytes(&table)),
        eh_frame_svma: Some(table),
        eh_frame_hdr: Some(index),
        eh_frame_hdr_svma: Some(header),
        ..Default::default()
    };
    Some(Module::new(name, base + first..base + last, base, sections))
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;
    use crate::io::system::stack::Thread;

    #[inline(never)]
    fn spin_in_here(stop: &AtomicBool) -> u64 {
        let mut turns = 0;
        while !stop.load(Ordering::Relaxed) {
            turns = black_box(turns + 1);
        }
        turns
    }

    /// Runs `ask` while another thread is in `work`.
    fn during<R>(
        work: impl FnOnce(&AtomicBool) + Send + 'static,
        ask: impl FnOnce(&Thread) -> R,
    ) -> R {
        static STOPS: Mutex<Vec<&'static AtomicBool>> = Mutex::new(Vec::new());
        let stop: &'static AtomicBool = Box::leak(Box::default());
        STOPS.lock().unwrap_or_else(PoisonError::into_inner).push(stop);
        let (tell, told) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            tell.send(Thread::current()).expect("it is waited for");
            work(stop);
        });
        let result = ask(&told.recv().expect("it has started"));
        stop.store(true, Ordering::Relaxed);
        thread.join().expect("it does not panic");
        result
    }

    fn has(frames: &[Frame], name: &str) -> bool {
        frames.iter().any(|frame| frame.function.as_deref().is_some_and(|it| it.contains(name)))
    }

    #[test]
    fn the_function_that_spins_is_named_with_its_callers() {
        let work = |stop: &AtomicBool| {
            spin_in_here(stop);
        };
        let seen = during(work, |thread| {
            // The first look may come before it is there.
            let looks = (0..1_000).map(|_| frames(&capture(thread.number).expect("it answers")));
            looks.into_iter().find(|frames| has(frames, "spin_in_here"))
        });
        let frames = seen.expect("it is in there nearly always");
        let place = frames.iter().position(|frame| has(slice::from_ref(frame), "spin_in_here"));
        let outside = &frames[place.expect("just seen") + 1..];
        assert!(has(outside, "during"), "its caller: {frames:#?}");
        assert!(has(outside, "thread_start") || has(outside, "clone"), "to the end: {frames:#?}");
    }

    #[test]
    fn a_thread_in_a_system_call_is_seen_in_it() {
        let work = |stop: &AtomicBool| {
            while !stop.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(20));
            }
        };
        let found = during(work, |thread| {
            let mut looks =
                (0..1_000).map(|_| frames(&capture(thread.number).expect("it answers")));
            looks.find(|frames| has(frames, "nanosleep"))
        });
        let frames = found.expect("it sleeps nearly always");
        assert!(has(&frames, "a_thread_in_a_system_call_is_seen_in_it"), "{frames:#?}");
    }

    /// Locks that the other thread holds, or waits for, must not matter: those of the allocator, of
    /// the loader, of standard error.
    #[test]
    fn it_does_not_matter_what_the_thread_is_doing() {
        let work = |stop: &AtomicBool| {
            while !stop.load(Ordering::Relaxed) {
                drop(black_box(vec![vec![1_u8; 300]; 30]));
                modules(|module| drop(black_box(module)));
                drop(black_box(std::backtrace::Backtrace::force_capture()));
            }
        };
        let longest = during(work, |thread| {
            let looks =
                (0..200).map(|_| frames(&capture(thread.number).expect("it answers")).len());
            looks.max()
        });
        assert!(longest > Some(3));
    }

    #[test]
    fn a_thread_that_is_gone_is_told() {
        let gone = thread::spawn(Thread::current).join().expect("it does not panic");
        assert!(capture(gone.number).is_err());
    }

    #[test]
    fn one_that_blocks_signals_is_given_up_and_the_next_answers() {
        let blocked = |stop: &AtomicBool| {
            let _blocked = crate::io::pool::SignalsBlocked::new();
            spin_in_here(stop);
        };
        let refused = during(blocked, |thread| {
            (0..100).map(|_| capture(thread.number)).find_map(Result::err)
        });
        assert!(refused.is_some_and(|why| why.contains("did not answer")));
        let work = |stop: &AtomicBool| {
            spin_in_here(stop);
        };
        assert!(during(work, |thread| capture(thread.number).is_ok()));
    }

    #[test]
    fn a_wild_pointer_copies_nothing() {
        let _one = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(copy_from(16), 0);
        assert_eq!(copy_from(usize::MAX - 100), 0);
        let here = 7_u64;
        assert!(copy_from((&raw const here).addr()) >= 8);
    }
}
