//! What the targets share: an input says with its first bytes how the rest is cut into pieces.

/// How many bytes of an input say how it is cut.
pub const HEAD: usize = 4;

/// An input as a source of bytes would deliver it.
pub struct Cut<'a> {
    sizes: [u8; HEAD],
    pub text: &'a [u8],
}

impl<'a> Cut<'a> {
    /// `None` when the input is too short.
    pub fn of(input: &'a [u8]) -> Option<Self> {
        let (sizes, text) = input.split_first_chunk::<HEAD>()?;
        Some(Self { sizes: *sizes, text })
    }

    /// The pieces of `text`: their sizes go round; a size of 0 gives an empty piece.
    pub fn pieces<'t>(&self, text: &'t [u8]) -> impl Iterator<Item = &'t [u8]> {
        // Without one size above 0 it would never end.
        let mut sizes = self.sizes;
        sizes[HEAD - 1] = sizes[HEAD - 1].max(1);
        let (mut rest, mut turn) = (text, 0);
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let size = usize::from(sizes[turn % HEAD]).min(rest.len());
            turn += 1;
            let (piece, after) = rest.split_at(size);
            rest = after;
            Some(piece)
        })
    }
}
