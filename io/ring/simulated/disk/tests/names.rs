//! Opening by name: the errors of open(2), and which names a crash leaves.

use super::*;

#[test]
fn opening_answers_as_openat_does() {
    let mut disk = disk(0, DiskOptions::new());
    disk.put("/var/file", b"bytes");
    let long = "n".repeat(256);
    let (create, write) = (libc::O_CREAT | libc::O_WRONLY, libc::O_WRONLY);
    let cases: &[(&str, i32, i32)] = &[
        ("/var/none", libc::O_RDONLY, libc::ENOENT),
        ("/none/file", create, libc::ENOENT),
        ("", libc::O_RDONLY, libc::ENOENT),
        ("/var/file/below", libc::O_RDONLY, libc::ENOTDIR),
        ("/var/file/", libc::O_RDONLY, libc::ENOTDIR),
        ("/var/file/..", libc::O_RDONLY, libc::ENOTDIR),
        ("/var/file", create | libc::O_EXCL, libc::EEXIST),
        ("/var", create | libc::O_EXCL, libc::EEXIST),
        ("/var", write, libc::EISDIR),
        ("/var", libc::O_RDONLY | libc::O_TRUNC, libc::EISDIR),
        ("/var", libc::O_RDONLY | libc::O_CREAT, libc::EISDIR),
        ("/var", libc::O_RDONLY | libc::O_DIRECT, libc::EINVAL),
        ("/var/new/", create, libc::EISDIR),
        ("/var/file", libc::O_RDONLY | libc::O_DIRECTORY, libc::ENOTDIR),
        ("/var/new", create | libc::O_DIRECTORY, libc::EINVAL),
        (&long, create, libc::ENAMETOOLONG),
        (&"/var".repeat(1024), libc::O_RDONLY, libc::ENAMETOOLONG),
    ];
    for (path, flags, error) in cases {
        let opened = disk.open(path.as_bytes(), *flags, 0o666);
        assert_eq!(opened.err(), Some(-error), "{path:.20} with {flags:#o}");
    }
    for path in ["/var/file", "//var//./file", "/../var/../var/file", "var/file"] {
        let handle = disk.open(path.as_bytes(), libc::O_RDONLY, 0).unwrap();
        assert_eq!(disk.read(handle, 0, 0, 9).unwrap(), b"bytes", "{path}");
        assert_eq!(disk.close(handle), 0);
    }
    assert_eq!(disk.open_files(), 0, "what fails opens nothing");
    assert_eq!(disk.contents("/var/new"), None, "nor makes anything");
}

#[test]
fn a_handle_does_what_it_was_opened_for() {
    let mut disk = disk(0, DiskOptions::new());
    disk.put("/file", &[7; 8192]);
    disk.make_directory("/var");
    let reader = disk.open(b"/file", libc::O_RDONLY | libc::O_CLOEXEC, 0).unwrap();
    assert_eq!(disk.flags(reader), libc::O_RDONLY);
    assert_eq!(disk.set_length(reader, 0), Some(-libc::EINVAL), "ftruncate(2)");
    assert_eq!(disk.allocate(reader, 0, 1), Some(-libc::EBADF));
    assert_eq!(disk.synchronize(reader), 0);
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT;
    let writer = disk.open(b"/file", flags, 0).unwrap();
    assert_eq!(disk.flags(writer), libc::O_WRONLY | libc::O_APPEND);
    assert_eq!(disk.read(writer, 0, 0, 1), Err(-libc::EBADF));
    assert_eq!(disk.allocate(writer, 0, 0), Some(-libc::EINVAL));
    assert_eq!(disk.allocate(writer, i64::MAX as u64, 1), Some(-libc::EFBIG));
    assert_eq!(disk.set_length(writer, u64::MAX), Some(-libc::EINVAL));
    let directory = disk.open(b"/var", libc::O_RDONLY | libc::O_DIRECTORY, 0).unwrap();
    assert_eq!(disk.read(directory, 0, 0, 1), Err(-libc::EISDIR));
    let stat = disk.metadata(directory).unwrap().read();
    assert_eq!(stat.mode, libc::S_IFDIR | 0o755);

    let direct = disk.open(b"/file", libc::O_RDONLY | libc::O_DIRECT, 0).unwrap();
    for (address, at, length) in [(8, 0, 512), (512, 8, 512), (512, 512, 8)] {
        assert_eq!(disk.read(direct, address, at, length), Err(-libc::EINVAL));
    }
    assert_eq!(disk.read(direct, 512, 1024, 512).unwrap(), [7; 512]);
    assert_eq!(disk.read(direct, 512, 8192, 512).unwrap(), [0; 0]);
    assert_eq!(disk.metadata_of(b"/file").unwrap().read().length, 8192);
    assert_eq!(disk.metadata_of(b"/none").err(), Some(-libc::ENOENT));

    let emptied = disk.open(b"/file", libc::O_WRONLY | libc::O_TRUNC, 0).unwrap();
    assert_eq!(disk.metadata(emptied).unwrap().read().length, 0);
    let made = disk.open(b"/made", libc::O_WRONLY | libc::O_CREAT, 0o666).unwrap();
    assert_eq!(disk.metadata(made).unwrap().read().mode, libc::S_IFREG | 0o644, "the umask");
}

#[test]
fn a_handle_of_before_the_crash_does_nothing_more() {
    let mut disk = disk(0, DiskOptions::new());
    disk.put("/file", b"kept");
    let old = read_write(&mut disk, "/file");
    disk.crash();
    let new = read_write(&mut disk, "/file");
    assert_eq!(disk.read(old, 0, 0, 4), Err(-libc::EIO));
    assert_eq!(disk.set_length(old, 0), Some(-libc::EIO));
    assert_eq!(disk.synchronize(old), -libc::EIO);
    assert_eq!(disk.close(old), 0, "it closes nobody else's");
    assert_eq!(disk.read(new, 0, 0, 4).unwrap(), b"kept");
}

/// Makes `/var/0`, `/var/1` and `/var/2`, syncs the files with these numbers and then maybe `/var`,
/// and crashes. Which names are left.
fn left_of(seed: u64, survival: Survival, synced: &[usize], directory: bool) -> Vec<usize> {
    let mut disk = disk(seed, DiskOptions::new().survival(survival));
    disk.make_directory("/var");
    let handles: Vec<Handle> =
        (0..3).map(|number| read_write(&mut disk, &format!("/var/{number}"))).collect();
    for number in synced {
        assert_eq!(disk.synchronize(handles[*number]), 0);
    }
    if directory {
        let handle = disk.open(b"/var", libc::O_RDONLY, 0).unwrap();
        assert_eq!(disk.synchronize(handle), 0);
    }
    disk.crash();
    (0..3).filter(|number| disk.contents(&format!("/var/{number}")).is_some()).collect()
}

#[test]
fn a_name_is_certain_when_its_directory_was_synced() {
    let all = |survival, synced: &[usize], directory| {
        let mut found: Vec<_> =
            (0..SEEDS).map(|seed| left_of(seed, survival, synced, directory)).collect();
        found.sort();
        found.dedup();
        found
    };
    for survival in both() {
        assert_eq!(all(survival, &[], true), [[0, 1, 2]]);
    }
    assert_eq!(all(Survival::Posix, &[0, 1, 2], false).len(), 8, "any of the names");
    let prefixes: [&[usize]; 4] = [&[], &[0], &[0, 1], &[0, 1, 2]];
    assert_eq!(all(Survival::Ordered, &[], false), prefixes);
    assert_eq!(all(Survival::Ordered, &[1], false), [[0, 1, 2]], "a sync keeps all made before");
}
