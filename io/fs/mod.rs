//! Files: positional reads and writes, and what a dropped change may still do. `guide.md` is the
//! public text.

mod close;
mod file;
mod flight;
mod ledger;
mod metadata;
mod open_options;
mod operation;
mod shared;
mod transfer;
mod whole;

pub use self::file::File;
pub use self::metadata::Metadata;
pub use self::open_options::OpenOptions;
pub use self::operation::Operation;
pub use self::whole::{read, write};
pub use crate::io::timed::Timed;
