//! The two media of a board: a disk with a partition table, slots and data, and a card with the boot environment. New ones
//! are made for every run and cost little: files with holes.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use bootenv::scheme::SchemeKind;

use super::environment::{ENVIRONMENT_OFFSETS_BYTES, factory_copy};
use super::error::Error;
use super::slot::make_file_system;
use super::step;

const MIB: u64 = 1024 * 1024;

/// Size of each slot partition.
pub const SLOT_BYTES: u64 = 512 * MIB;

/// Size of the data partition.
pub const DATA_BYTES: u64 = 128 * MIB;

/// Where slot a, slot b and data begin on the disk. The first MiB holds the partition table, the last one its copy.
pub const PARTITION_OFFSETS_BYTES: [u64; 3] = [MIB, MIB + SLOT_BYTES, MIB + 2 * SLOT_BYTES];

const DISK_BYTES: u64 = 2 * MIB + 2 * SLOT_BYTES + DATA_BYTES;

/// QEMU takes cards of a power of two only.
const CARD_BYTES: u64 = 64 * MIB;

/// What is copied at a time, and the size of holes that are kept.
const BLOCK_BYTES: usize = 64 * 1024;

/// Makes `disk.img`: slot a holds an image, slot b another one or nothing, data is an empty file system.
pub(crate) fn new_disk(directory: &Path, a: &Path, b: Option<&Path>) -> Result<PathBuf, Error> {
    let path = directory.join("disk.img");
    let [start_a, start_b, start_data] = PARTITION_OFFSETS_BYTES;
    let disk = File::create(&path).map_err(Error::io("create", &path))?;
    disk.set_len(DISK_BYTES).map_err(Error::io("size", &path))?;
    let sectors = |bytes: u64| bytes / 512;
    let mut arguments = vec!["--clear".to_owned(), "--set-alignment=1".to_owned()];
    for (number, (name, start, size)) in (1..).zip([
        ("rootfs-a", start_a, SLOT_BYTES),
        ("rootfs-b", start_b, SLOT_BYTES),
        ("data", start_data, DATA_BYTES),
    ]) {
        arguments.push(format!("--new={number}:{}:{}", sectors(start), sectors(start + size) - 1));
        arguments.push(format!("--typecode={number}:8300"));
        arguments.push(format!("--change-name={number}:{name}"));
    }
    arguments.push(path.display().to_string());
    step::run("disk", &mut step::command("sgdisk", arguments), "scripts/need-board installs gdisk")?;
    place(a, &path, start_a, SLOT_BYTES)?;
    if let Some(b) = b {
        place(b, &path, start_b, SLOT_BYTES)?;
    }
    let (empty, data) = (directory.join("data"), directory.join("data.ext4"));
    std::fs::create_dir_all(&empty).map_err(Error::io("create", &empty))?;
    make_file_system(&empty, &data, DATA_BYTES, "data partition")?;
    place(&data, &path, start_data, DATA_BYTES)?;
    std::fs::remove_file(&data).map_err(Error::io("remove", &data))?;
    std::fs::remove_dir(&empty).map_err(Error::io("remove", &empty))?;
    Ok(path)
}

/// Makes `card.img` with both copies of the factory environment.
pub(crate) fn new_card(directory: &Path, scheme: SchemeKind) -> Result<PathBuf, Error> {
    let path = directory.join("card.img");
    let copy = factory_copy(scheme)?;
    let mut card = File::create(&path).map_err(Error::io("create", &path))?;
    card.set_len(CARD_BYTES).map_err(Error::io("size", &path))?;
    for offset in ENVIRONMENT_OFFSETS_BYTES {
        card.seek(SeekFrom::Start(offset.into()))
            .and_then(|_| card.write_all(&copy))
            .map_err(Error::io("write", &path))?;
    }
    Ok(path)
}

/// Copies an image into a partition of the disk, leaving holes where it is zero.
pub(crate) fn place(image: &Path, disk: &Path, start: u64, room: u64) -> Result<(), Error> {
    let mut from = File::open(image).map_err(Error::io("open", image))?;
    let size = from.metadata().map_err(Error::io("look at", image))?.len();
    if size > room {
        return Err(Error::Unexpected(format!(
            "{} is {size} bytes, the partition holds {room}",
            image.display()
        )));
    }
    let mut to = File::options().write(true).open(disk).map_err(Error::io("open", disk))?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut offset = start;
    loop {
        let count = from.read(&mut block).map_err(Error::io("read", image))?;
        let bytes = block.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        if bytes.iter().any(|&byte| byte != 0) {
            to.seek(SeekFrom::Start(offset))
                .and_then(|_| to.write_all(bytes))
                .map_err(Error::io("write", disk))?;
        }
        offset += count as u64;
    }
}
