//! Random reads on a bare ring: `depth` reads in flight, each replaced when it completes.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};

use crate::files::{BLOCK, Block, Plan};

/// Reads as the plan says.
pub fn read(plan: &Plan) -> io::Result<u64> {
    let file = plan.open()?;
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_clamp()
        .build(plan.depth as u32)?;
    let mut offsets = plan.offsets(0);
    // Named before the loop and dropped after it: the ring has been drained by then.
    let mut blocks: Vec<Block> = (0..plan.depth).map(|_| Block::new()).collect();
    let mut wanted = vec![0; plan.depth];
    let mut idle: Vec<usize> = (0..plan.depth).collect();
    let mut count = 0;
    loop {
        while !idle.is_empty() {
            let Some(offset) = offsets.next() else { break };
            let slot = idle.pop().expect("just checked");
            wanted[slot] = offset;
            let entry = entry(Fd(file.as_raw_fd()), &mut blocks[slot], offset, slot);
            // SAFETY: the block stays where it is until its completion has been reaped.
            unsafe { ring.submission().push(&entry) }.expect("as many entries as reads");
        }
        if idle.len() == plan.depth {
            return Ok(count);
        }
        ring.submit_and_wait(1)?;
        for completion in ring.completion() {
            let slot = completion.user_data() as usize;
            if completion.result() < 0 {
                return Err(io::Error::from_raw_os_error(-completion.result()));
            }
            blocks[slot].check(completion.result() as usize, wanted[slot])?;
            idle.push(slot);
            count += 1;
        }
    }
}

fn entry(file: Fd, block: &mut Block, offset: u64, slot: usize) -> squeue::Entry {
    opcode::Read::new(file, block.as_mut_ptr(), BLOCK as u32)
        .offset(offset)
        .build()
        .user_data(slot as u64)
}
