//! The progress bar of long offline work: on standard error, and only when that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::Globals;

/// A bar over bytes; removed from the screen when dropped.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new(globals: &Globals, verb: &'static str) -> Bar {
        let hidden = globals.quiet || globals.json;
        // indicatif itself draws nothing when standard error is no terminal.
        let target =
            if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(8) };
        let bar = ProgressBar::with_draw_target(None, target);
        let template = "{msg} [{bar:30}] {percent:>3} %  {binary_bytes_per_sec}  {eta} left";
        // The template is a constant: a mistake in it leaves the default style and costs no more than looks.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(verb);
        Bar(bar)
    }

    pub(super) fn set(&self, progress: otad_bundle::Progress) {
        self.0.set_length(progress.total);
        self.0.set_position(progress.done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
