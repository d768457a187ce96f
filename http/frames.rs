//! Which bytes that HTTP/2 writes are of a message, and which only keep the connection itself
//! going.
//!
//! ```text
//!   length: 3 │ type: 1 │ flags: 1 │ stream: 4 │ payload        (RFC 9113, section 4.1)
//! ```
//!
//! A peer that sends nothing but pings gets nothing but acknowledgements: those are no sign that it
//! still takes an answer. So frames are told apart by their type, on the way out, where they are
//! our own.

/// The bytes before a frame's payload.
const HEAD: usize = 9;

/// Where in a sequence of frames the next byte belongs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Frames {
    head: [u8; HEAD],
    /// So many bytes of the head have passed, and so many of the payload are to come.
    seen: usize,
    left: usize,
}

impl Frames {
    /// Goes on by these bytes. Whether some of them are of a response, or make room for a request.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) -> bool {
        let mut is_message = false;
        while !bytes.is_empty() {
            if self.seen < HEAD {
                let count = bytes.len().min(HEAD - self.seen);
                self.head[self.seen..self.seen + count].copy_from_slice(&bytes[..count]);
                self.seen += count;
                bytes = &bytes[count..];
                let [high, middle, low, ..] = self.head;
                self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            }
            is_message |= self.seen > 3 && self.is_message();
            if self.seen == HEAD {
                let count = bytes.len().min(self.left);
                self.left -= count;
                bytes = &bytes[count..];
                if self.left == 0 {
                    self.seen = 0;
                }
            }
        }
        is_message
    }

    /// WINDOW_UPDATE is among them: a server sends it when it has taken some of a request's body.
    fn is_message(&self) -> bool {
        const DATA: u8 = 0;
        const HEADERS: u8 = 1;
        const WINDOW_UPDATE: u8 = 8;
        const CONTINUATION: u8 = 9;
        matches!(self.head[3], DATA | HEADERS | WINDOW_UPDATE | CONTINUATION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let [.., high, middle, low] = length.to_be_bytes();
        let mut frame = vec![high, middle, low, kind, 0, 0, 0, 0, 1];
        frame.resize(HEAD + length, 0);
        frame
    }

    #[test]
    fn frames_are_told_apart_however_they_are_cut() {
        // SETTINGS, PING, DATA, PING, an empty HEADERS, GOAWAY.
        let frames = [(4, 0), (6, 8), (0, 300), (6, 8), (1, 0), (7, 8)];
        let bytes: Vec<u8> =
            frames.iter().flat_map(|(kind, length)| frame(*kind, *length)).collect();
        for piece in [1, 2, 3, 5, 9, 64, bytes.len()] {
            let (mut all, mut at) = (Frames::default(), 0);
            for part in bytes.chunks(piece) {
                let here = at..at + part.len();
                // Of a message, and not only the first bytes of a head, which do not tell yet.
                let data = here.start < 26 + 309 && here.end > 26 + 3;
                let headers = here.start < 352 + 9 && here.end > 352 + 3;
                assert_eq!(all.pass(part), data || headers, "{here:?} in pieces of {piece}");
                at = here.end;
            }
            assert_eq!((all.seen, all.left), (0, 0));
        }
    }

    #[test]
    fn a_long_frame_goes_on_for_as_long_as_it_says() {
        let mut frames = Frames::default();
        assert!(frames.pass(&frame(0, 70_000)[..100]));
        assert!(frames.pass(&vec![6; 69_908]), "its payload looks like anything");
        assert!(frames.pass(&[6]));
        assert!(!frames.pass(&frame(6, 8)));
    }
}
