//! Bytes made by other people's tools.

use std::fs;

use bootenv::format::Copy;
use bootenv::{ByteOrder, Changes, Environment, Layout};

use crate::support::{Place, succeed};

const TEXT: &str = "bootcmd=run x\nbootdelay=2\n";
const SIZE: usize = 0x40;

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

/// The variables of the vectors, and the padding up to the size.
fn vector(header: &str, strings: &str, pad: u8) -> Vec<u8> {
    let mut bytes = [unhex(header), unhex(strings)].concat();
    bytes.resize(SIZE, pad);
    bytes
}

const STRINGS: &str = "626f6f74636d643d72756e207800 626f6f7464656c61793d3200 00";

#[test]
fn golden_vectors_are_read_and_written() {
    use {ByteOrder::*, Layout::*};
    for (header, layout, order, pad) in [
        ("00de771f", Single, Little, 0xff),
        ("0a1e37a201", Redundant, Little, 0xff),
        ("ace0514401", Redundant, Little, 0x00),
        ("1f77de00", Single, Big, 0xff),
    ] {
        let golden = vector(header, STRINGS, pad);
        let copy = Copy::decode(&golden, layout, order).unwrap();
        let env = Environment::parse(&copy.data);
        assert_eq!(env.get_str("bootcmd"), Some("run x"));
        assert_eq!(env.get_str("bootdelay"), Some("2"));
        assert_eq!(env.len(), 2);
        let data = env.serialise(SIZE - layout.header_bytes(), pad).unwrap();
        assert_eq!(Copy { flags: copy.flags, data }.encode(layout, order), golden, "{header}");
    }
}

/// `fw_setenv foo bar` on two copies of mkenvimage: the second copy is written with the next counter, the first is untouched.
#[test]
fn a_commit_writes_what_fw_setenv_writes() {
    let start = vector("ace0514401", STRINGS, 0);
    let place = Place::new(2, SIZE);
    place.fill(&start);
    place.open().commit(&place.lock(), &Changes::new().set("foo", "bar")).unwrap();
    let strings = "626f6f74636d643d72756e207800 626f6f7464656c61793d3200 666f6f3d62617200 00";
    assert_eq!(place.bytes(), [start, vector("2ce5b1cd02", strings, 0)]);
}

/// The whole of `make-image` against mkenvimage: sizes, layouts, byte orders, padding, comments, line breaks in values.
#[test]
fn make_image_writes_what_mkenvimage_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (text, ours, theirs) =
        (dir.path().join("env.txt"), dir.path().join("ours"), dir.path().join("theirs"));
    let odd =
        "# a comment\nzz=last first\n\n\nscript=one; \\\n  two; \\\nthree\n#b=1\na=x=y#z\n\npath=C:\\\\dir\n";
    let mut count = 0;
    for (content, sizes) in
        [(TEXT, [0x40, 0x1000, 0x1f000]), (odd, [0x80, 0x4000, 0x40000]), ("a=1", [0x10, 0x100, 0x1000])]
    {
        fs::write(&text, content).unwrap();
        for size in sizes {
            for flags in [&[][..], &["-r"], &["-b"], &["-r", "-b"]] {
                for pad in ["0xff", "0x00", "0x5a"] {
                    let mut arguments = vec!["-s".into(), size.to_string(), "-p".into(), pad.to_owned()];
                    arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
                    arguments.extend(["-o".into(), theirs.display().to_string(), text.display().to_string()]);
                    succeed("mkenvimage", arguments);
                    let mut arguments =
                        vec!["make-image".to_owned(), format!("--size=0x{size:x}"), format!("--pad={pad}")];
                    for flag in flags {
                        arguments.push(if *flag == "-r" { "--redundant" } else { "--big-endian" }.to_owned());
                    }
                    arguments.extend([text.display().to_string(), ours.display().to_string()]);
                    succeed(env!("CARGO_BIN_EXE_bootenv"), arguments);
                    assert_eq!(
                        fs::read(&ours).unwrap(),
                        fs::read(&theirs).unwrap(),
                        "{content:?} {size} {flags:?} {pad}"
                    );
                    count += 1;
                }
            }
        }
    }
    println!("{count} images are byte for byte those of mkenvimage");
}
