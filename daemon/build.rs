//! Leaves the tables for unwinding out of the release's program: 690 KiB, a ninth of it, that no device reads, because a panic aborts
//! there. With `OTAD_UNWIND_TABLES=1` they stay, for a debugger that is to walk the stack of a core dump.

fn main() {
    println!("cargo:rerun-if-changed=no-unwind.ld");
    println!("cargo:rerun-if-env-changed=OTAD_UNWIND_TABLES");
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    let unread = var("PROFILE") == "release" && var("CARGO_CFG_TARGET_OS") == "linux";
    if unread && var("OTAD_UNWIND_TABLES") != "1" {
        println!(
            "cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr,-T,{}/no-unwind.ld",
            var("CARGO_MANIFEST_DIR")
        );
    }
}
