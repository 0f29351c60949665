//! What is done with the files of disks while no machine runs on them. Results appear by a rename, complete and durable.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, SeekFrom, renameat_with, seek};
use rustix::io::Errno;
use serde::Serialize;

use super::header::{BLOCK, Header, Parent};
use super::{Disk, Error, Part, create_as, failed, lock};

/// Bytes copied at once.
const PIECE: usize = 1 << 20;

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Info {
    /// The file.
    pub file: PathBuf,
    /// Raw or layer.
    pub format: Format,
    /// Bytes of the disk.
    pub virtual_size: u64,
    /// Bytes that the file occupies.
    pub used: u64,
    /// The layer's name.
    pub uuid: Option<String>,
    /// What the layer lies on.
    pub parent: Option<ParentInfo>,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The bytes of the disk.
    Raw,
    /// A layer.
    Layer,
}

/// What a layer lies on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ParentInfo {
    /// A raw file of this many bytes.
    Raw(u64),
    /// The layer with this uuid.
    Layer(String),
}

/// A piece of a disk that a layer has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// Says what a file is, also while a machine writes to it.
pub fn info(path: &Path) -> Result<Info, Error> {
    let name = name(path);
    let file = File::open(path).map_err(failed(&name, "opening"))?;
    let used = file.metadata().map_err(failed(&name, "asking its length"))?.blocks() * 512;
    let part = Part::open(&name, file, false)?;
    let header = part.layer.as_ref().map(|layer| &layer.header);
    let parent = match header.map(|header| header.parent) {
        None | Some(Parent::None) => None,
        Some(Parent::Raw(length)) => Some(ParentInfo::Raw(length)),
        Some(Parent::Layer(uuid)) => Some(ParentInfo::Layer(uuid.to_string())),
    };
    Ok(Info {
        file: path.to_owned(),
        format: if header.is_some() { Format::Layer } else { Format::Raw },
        virtual_size: part.length,
        used,
        uuid: header.map(|header| header.uuid.to_string()),
        parent,
    })
}

/// Makes an empty layer on `below` (bottom first), `size` bytes long if that is more than they are.
pub fn create(to: &Path, below: &[PathBuf], size: Option<u64>) -> Result<(), Error> {
    let (parent, length) = match below {
        [] => (Parent::None, size.unwrap_or(0)),
        below => {
            let disk = open(below)?;
            (disk.top().as_parent(), size.unwrap_or(disk.length()).max(disk.length()))
        }
    };
    let result = Unfinished::new(to)?;
    super::create(&result.file, &name(to), length, parent)?;
    result.finish()
}

/// Which bytes the top of a chain has.
pub fn diff(layers: &[PathBuf]) -> Result<Vec<Piece>, Error> {
    let disk = open(layers)?;
    let (mut pieces, end) = (Vec::new(), disk.length.div_ceil(BLOCK));
    let mut block = 0;
    while block < end {
        let (has, next) = disk.top().run(block, end);
        if has {
            let offset = block * BLOCK;
            pieces.push(Piece { offset, length: (next * BLOCK).min(disk.length) - offset });
        }
        block = next;
    }
    Ok(pieces)
}

/// Copies what a chain shows into one file: a layer without a parent, or a raw file.
pub fn flatten(layers: &[PathBuf], to: &Path, raw: bool) -> Result<(), Error> {
    let disk = open(layers)?;
    let result = Unfinished::new(to)?;
    let io = |what| failed(&result.name, what);
    if raw {
        result.file.set_len(disk.length).map_err(io("making it as long as the disk"))?;
    } else {
        super::create(&result.file, &result.name, disk.length, Parent::None)?;
    }
    let mut target = result.open()?;
    let mut progress = Progress::new("flattening", disk.length);
    let mut at = 0;
    while at < disk.length {
        let extent = disk.extent(at, (disk.length - at).min(64 * PIECE as u64));
        if let Some((file, place)) = extent.place {
            let start = target.place(at);
            // A layer needs bits only for what is not zero.
            copy(file, place, &result.file, start, extent.length, |begin, end| {
                target.written(&(at + begin..at + end));
            })
            .map_err(io("copying"))?;
        }
        at += extent.length;
        progress.reached(at);
    }
    flush(&mut target).map_err(io("writing"))?;
    result.finish()
}

/// Makes one layer of two that lie on each other. It shows what `upper` does, carries its name so that the layers above
/// lie on it as well, and lies on what `lower` lies on.
pub fn merge(lower: &Path, upper: &Path, to: &Path) -> Result<(), Error> {
    let (below, above) = (open_part(lower)?, open_part(upper)?);
    let (Some(base), Some(top)) = (&below.layer, &above.layer) else {
        return Err(Error::NotLayers);
    };
    super::check_link(Some(&below), &above)?;
    let header = Header { length: above.length, uuid: top.header.uuid, parent: base.header.parent };
    let result = Unfinished::new(to)?;
    let io = |what| failed(&result.name, what);
    create_as(&result.file, &result.name, &header)?;
    let mut target = result.open()?;
    let mut progress = Progress::new("merging", above.length);
    let (mut block, end) = (0, header.blocks());
    while block < end {
        let (in_upper, next) = above.run(block, end.min(block + 64 * PIECE as u64 / BLOCK));
        let (source, next) = match in_upper {
            true => (Some(&above), next),
            false => {
                let (in_lower, next) = below.run(block, next);
                (in_lower.then_some(&below), next)
            }
        };
        let range = block * BLOCK..(next * BLOCK).min(above.length);
        if let Some(source) = source {
            let length = range.end.min(source.length) - range.start;
            copy(&source.file, source.place(range.start), &result.file, target.place(range.start), length, |_, _| {})
                .map_err(io("copying"))?;
            // Zeros too: they may hide what lies below.
            target.written(&range);
        }
        block = next;
        progress.reached(range.end);
    }
    flush(&mut target).map_err(io("writing"))?;
    result.finish()
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

/// Opens a file that nobody writes to, and sees to it that nobody does.
fn open_file(path: &Path) -> Result<(String, File), Error> {
    let name = name(path);
    let file = File::open(path).map_err(failed(&name, "opening"))?;
    lock(&name, &file, false)?;
    Ok((name, file))
}

fn open_part(path: &Path) -> Result<Part, Error> {
    let (name, file) = open_file(path)?;
    Part::open(&name, file, false)
}

fn open(layers: &[PathBuf]) -> Result<Disk, Error> {
    let files = layers.iter().map(|path| open_file(path)).collect::<Result<_, _>>()?;
    Disk::open(files, false)
}

/// Writes the bits of what was copied.
fn flush(disk: &mut Disk) -> io::Result<()> {
    let file = disk.top_file().clone();
    file.sync_data()?;
    disk.take_new_bits().iter().try_for_each(|page| file.write_all_at(&page.bytes, page.place))
}

/// Copies what is not zero, in whole blocks, into a file that is zeros. Calls `copied` with where each piece begins and ends,
/// counted from the start.
fn copy(
    from: &File,
    place: u64,
    to: &File,
    start: u64,
    length: u64,
    mut copied: impl FnMut(u64, u64),
) -> io::Result<()> {
    let mut buffer = vec![0; length.min(PIECE as u64) as usize];
    let mut at = 0;
    while at < length {
        // Holes are passed over, from one block's start to another's. A file system without them has data everywhere.
        match seek(from, SeekFrom::Data(place + at)) {
            Ok(data) => at = at.max((data - place) / BLOCK * BLOCK),
            Err(Errno::NXIO) => break,
            Err(_) => {}
        }
        let piece = buffer.len().min(length.saturating_sub(at) as usize);
        from.read_exact_at(&mut buffer[..piece], place + at)?;
        for (index, block) in buffer[..piece].chunks(BLOCK as usize).enumerate() {
            if block.iter().any(|byte| *byte != 0) {
                let begin = at + index as u64 * BLOCK;
                to.write_all_at(block, start + begin)?;
                copied(begin, begin + block.len() as u64);
            }
        }
        at += piece as u64;
    }
    Ok(())
}

/// A result that nobody sees yet. Dropping it takes it away.
struct Unfinished {
    name: String,
    file: File,
    partial: PathBuf,
    to: PathBuf,
    finished: bool,
}

impl Unfinished {
    fn new(to: &Path) -> Result<Self, Error> {
        let name = name(to);
        let io = |what| failed(&name, what);
        let last = to.file_name().ok_or_else(|| io("making it")(io::ErrorKind::InvalidFilename.into()))?;
        if to.symlink_metadata().is_ok() {
            return Err(io("making it")(io::ErrorKind::AlreadyExists.into()));
        }
        let partial = to.with_file_name(format!(".{}.{}.partial", last.display(), std::process::id()));
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).open(&partial).map_err(io("making it"))?;
        Ok(Self { name, file, partial, to: to.to_owned(), finished: false })
    }

    /// The result as a disk that is written to, alone.
    fn open(&self) -> Result<Disk, Error> {
        let file = self.file.try_clone().map_err(failed(&self.name, "opening"))?;
        let part = Part::open(&self.name, file, true)?;
        Ok(Disk { length: part.length, parts: vec![part], writable: true, new_bits: Default::default() })
    }

    fn finish(mut self) -> Result<(), Error> {
        let done = || {
            self.file.sync_all()?;
            renameat_with(CWD, &self.partial, CWD, &self.to, RenameFlags::NOREPLACE)?;
            let folder = self.to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(folder)?.sync_all()
        };
        done().map_err(failed(&self.name, "finishing it"))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            // If it cannot be removed it is a file with a name that tells what it is.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

/// Tells how far something is that takes more than a second.
struct Progress {
    what: &'static str,
    total: u64,
    told: Instant,
}

impl Progress {
    fn new(what: &'static str, total: u64) -> Self {
        Self { what, total, told: Instant::now() }
    }

    fn reached(&mut self, at: u64) {
        if self.told.elapsed() >= Duration::from_secs(1) {
            self.told = Instant::now();
            eprintln!("yunju-vmm: {}: {} %", self.what, at * 100 / self.total.max(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Uuid;
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn paths(&self, names: &[&str]) -> Vec<PathBuf> {
            names.iter().map(|name| self.path(name)).collect()
        }

        fn read(&self, names: &[&str]) -> Vec<u8> {
            let disk = open(&self.paths(names)).unwrap();
            let mut bytes = vec![0; disk.length() as usize];
            disk.read_at(&mut bytes, 0).unwrap();
            bytes
        }

        /// Writes whole blocks, or zeros hiding what is below, to the last of a chain.
        fn write(&self, names: &[&str], blocks: &[(u64, Option<u8>)]) {
            let files = names
                .iter()
                .map(|n| (n.to_string(), OpenOptions::new().read(true).write(true).open(self.path(n)).unwrap()));
            let mut disk = Disk::open(files.collect(), true).unwrap();
            for (block, byte) in blocks {
                let range = block * BLOCK..(block + 1) * BLOCK;
                match byte {
                    Some(byte) => {
                        disk.top_file().write_all_at(&[*byte; 4096], disk.place(range.start)).unwrap();
                        disk.written(&range);
                    }
                    None => disk.cleared(&range),
                }
            }
            flush(&mut disk).unwrap();
        }
    }

    /// base (raw) ← a ← b, 64 blocks.
    fn chain() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        let base: Vec<u8> = (0..64 * 4096).map(|at| if at / 4096 % 3 == 0 { 0x11 } else { 0 }).collect();
        fs::write(folder.path("base"), base).unwrap();
        create(&folder.path("a"), &folder.paths(&["base"]), None).unwrap();
        folder.write(&["base", "a"], &[(0, Some(0xaa)), (1, Some(0xaa)), (3, None), (10, Some(0xaa))]);
        create(&folder.path("b"), &folder.paths(&["base", "a"]), Some(80 * 4096)).unwrap();
        folder.write(&["base", "a", "b"], &[(1, Some(0xbb)), (10, None), (70, Some(0xbb))]);
        folder
    }

    #[test]
    fn a_layer_tells_what_it_is_and_what_it_lies_on() {
        let folder = chain();
        let [base, a, b] = ["base", "a", "b"].map(|name| info(&folder.path(name)).unwrap());
        assert_eq!((base.format, base.virtual_size, base.uuid, base.parent), (Format::Raw, 64 * 4096, None, None));
        assert_eq!((a.format, a.virtual_size, a.parent), (Format::Layer, 64 * 4096, Some(ParentInfo::Raw(64 * 4096))));
        assert_eq!((b.virtual_size, b.parent), (80 * 4096, Some(ParentInfo::Layer(a.uuid.unwrap()))));
        assert!(b.used < 128 << 10, "{}", b.used);
    }

    #[test]
    fn a_diff_is_what_the_top_has() {
        let folder = chain();
        let pieces = diff(&folder.paths(&["base", "a"])).unwrap();
        let expected = [(0, 2), (3, 1), (10, 1)].map(|(at, n)| Piece { offset: at * 4096, length: n * 4096 });
        assert_eq!(pieces, expected);
    }

    #[test]
    fn a_flattened_chain_shows_the_same_alone() {
        let folder = chain();
        let expected = folder.read(&["base", "a", "b"]);
        assert_eq!((expected[4096], expected[3 * 4096], expected[10 * 4096], expected[70 * 4096]), (0xbb, 0, 0, 0xbb));
        flatten(&folder.paths(&["base", "a", "b"]), &folder.path("raw"), true).unwrap();
        assert!(fs::read(folder.path("raw")).unwrap() == expected);
        flatten(&folder.paths(&["base", "a", "b"]), &folder.path("layer"), false).unwrap();
        assert!(folder.read(&["layer"]) == expected);
        assert_eq!(info(&folder.path("layer")).unwrap().parent, None);
    }

    #[test]
    fn merged_layers_take_the_place_of_both() {
        let folder = chain();
        create(&folder.path("c"), &folder.paths(&["base", "a", "b"]), None).unwrap();
        folder.write(&["base", "a", "b", "c"], &[(5, Some(0xcc))]);
        let expected = folder.read(&["base", "a", "b", "c"]);
        merge(&folder.path("a"), &folder.path("b"), &folder.path("ab")).unwrap();
        assert!(folder.read(&["base", "ab", "c"]) == expected);
        let error = merge(&folder.path("b"), &folder.path("a"), &folder.path("ba")).unwrap_err();
        assert!(matches!(error, Error::Parent { .. }), "{error}");
        let error = merge(&folder.path("base"), &folder.path("a"), &folder.path("ba")).unwrap_err();
        assert!(matches!(error, Error::NotLayers), "{error}");
    }

    #[test]
    fn what_is_there_is_never_replaced_and_what_failed_leaves_nothing() {
        let folder = chain();
        let before = fs::read(folder.path("a")).unwrap();
        assert!(create(&folder.path("a"), &[], Some(4096)).is_err());
        assert!(fs::read(folder.path("a")).unwrap() == before);
        assert!(matches!(create(&folder.path("new"), &[], Some(100)), Err(Error::Size(100))));
        assert!(matches!(create(&folder.path("new"), &folder.paths(&["a"]), None), Err(Error::Parent { .. })));
        let mut names: Vec<_> =
            fs::read_dir(folder.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", "b", "base"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn any_file_is_a_disk_that_can_be_read_or_is_refused(
            length in prop_oneof![0..1u64 << 21, any::<u64>()],
            parent in 0..3u8,
            bitmap in proptest::collection::vec(any::<u8>(), 0..300),
            file_length in 0..8u64 << 20,
            junk in proptest::option::of((0usize..80, any::<u8>())),
        ) {
            let folder = chain();
            let parent = [Parent::None, Parent::Raw(64 * 4096), Parent::Layer(Uuid([3; 16]))][parent as usize];
            let header = Header { length: length / 512 * 512, uuid: Uuid([3; 16]), parent };
            let mut bytes = header.encode().to_vec();
            if let Some((at, byte)) = junk {
                bytes[at] = byte;
            }
            bytes.extend(bitmap);
            let path = folder.path("hostile");
            fs::write(&path, &bytes).unwrap();
            File::options().write(true).open(&path).unwrap().set_len(file_length).unwrap();
            let _ = info(&path);
            for chain in [&["hostile"][..], &["base", "hostile"], &["hostile", "hostile"]] {
                let Ok(disk) = open(&folder.paths(chain)) else { continue };
                let mut bytes = vec![0; disk.length().min(4 << 20) as usize];
                disk.read_at(&mut bytes, 0).unwrap();
                diff(&folder.paths(chain)).unwrap();
                flatten(&folder.paths(chain), &folder.path("flat"), false).unwrap();
                fs::remove_file(folder.path("flat")).unwrap();
            }
        }
    }

    #[test]
    fn a_layer_that_is_cut_damaged_or_misplaced_is_refused_by_name() {
        let folder = chain();
        let complaint = |names: &[&str]| open(&folder.paths(names)).map(|_| ()).unwrap_err().to_string();
        assert!(complaint(&["a"]).contains("it lies on a raw file of 262144 bytes, but was given nothing"));
        assert!(complaint(&["base", "b"]).contains("it lies on layer "));
        assert!(complaint(&["a", "base"]).contains("a: it lies on"));
        assert!(complaint(&["base", "base"]).contains("is no layer"));
        assert!(complaint(&[]).contains("at least one file"));
        let whole = fs::read(folder.path("b")).unwrap();
        fs::write(folder.path("b"), &whole[..whole.len() - 1]).unwrap();
        assert!(complaint(&["base", "a", "b"]).contains("1 bytes are missing at its end"));
        let mut damaged = whole;
        damaged[20] ^= 1;
        fs::write(folder.path("b"), damaged).unwrap();
        assert!(complaint(&["base", "a", "b"]).contains("damaged"));
    }
}
