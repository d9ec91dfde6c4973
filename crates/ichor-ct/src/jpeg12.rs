//! Lossy JPEG with twelve bits a sample (ISO 10918-1, extended sequential, Huffman coded; PS3.5 8.2.1, process 4).
//!
//! Old CT archives hold it, and the decoders for the web stop at eight bits. One component, one scan: what a CT image may
//! have. Data that end early are refused; nothing is made up for them.

/// Side of a block.
const SIDE: usize = 8;
/// Coefficients of a block.
const BLOCK: usize = SIDE * SIDE;
/// Where the coefficients of a block go, in the order of the stream (figure A.6).
const ZIGZAG: [usize; BLOCK] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];
/// Largest value of a sample.
const MOST: f32 = 4095.0;
/// What the encoder took from each sample (A.3.1).
const MIDDLE: f32 = 2048.0;

type Decoded<T> = Result<T, String>;

fn broken<T>(text: impl Into<String>) -> Decoded<T> {
    Err(text.into())
}

/// A Huffman table (annex C and F.2.2.3).
#[derive(Clone, Default)]
struct Table {
    /// For each length: the largest code and one, as if it had 16 bits; and what to add to a code for its symbol's place.
    ends: [(u32, i32); 16],
    symbols: Vec<u8>,
}

impl Table {
    fn new(counts: &[u8], symbols: &[u8]) -> Decoded<Self> {
        let mut table = Self { ends: [(0, 0); 16], symbols: symbols.to_vec() };
        let (mut code, mut place) = (0u32, 0i32);
        for (length, count) in (1u32..).zip(counts).take(16) {
            let first = code;
            code += u32::from(*count);
            if code > 1 << length {
                return broken("a Huffman table has more codes than fit");
            }
            table.ends[length as usize - 1] = (code << (16 - length), place - first as i32);
            place += i32::from(*count);
            code <<= 1;
        }
        Ok(table)
    }
}

/// The entropy-coded segment, bit by bit (F.2.2.5).
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u32,
    count: u32,
}

impl Bits<'_> {
    /// Fills up to at least 16 bits. Behind the end come zeroes, which [`Self::take`] does not give away.
    fn fill(&mut self) -> u32 {
        let mut missing = 0;
        while self.count <= 16 {
            let byte = match (self.bytes.get(self.at), self.bytes.get(self.at + 1)) {
                (Some(0xFF), Some(0)) => {
                    self.at += 2;
                    0xFF
                }
                (Some(0xFF), _) | (None, _) => {
                    missing += 8;
                    0
                }
                (Some(byte), _) => {
                    self.at += 1;
                    *byte
                }
            };
            self.held |= u32::from(byte) << (24 - self.count);
            self.count += 8;
        }
        missing
    }

    fn take(&mut self, bits: u32) -> Decoded<u32> {
        if bits == 0 {
            return Ok(0);
        }
        let missing = self.fill();
        if self.count - missing < bits {
            return broken("its coded data end early");
        }
        let value = self.held >> (32 - bits);
        self.held <<= bits;
        self.count -= bits + missing;
        // What was made up behind the end goes again.
        self.held = if self.count == 0 { 0 } else { self.held & (u32::MAX << (32 - self.count)) };
        Ok(value)
    }

    fn symbol(&mut self, table: &Table) -> Decoded<u8> {
        let missing = self.fill();
        let peeked = self.held >> 16;
        self.count -= missing;
        let found = (1u32..).zip(&table.ends).find(|(_, (end, _))| peeked < *end);
        let Some((length, (_, shift))) = found else { return broken("its coded data hold a code that no table has") };
        let place = (peeked >> (16 - length)) as i32 + shift;
        self.take(length)?;
        let symbol = usize::try_from(place).ok().and_then(|place| table.symbols.get(place));
        symbol.copied().ok_or_else(|| "its coded data hold a code that no table has".to_owned())
    }

    /// A number of so many bits with its sign (F.2.2.1, EXTEND).
    fn signed(&mut self, bits: u32) -> Decoded<i32> {
        let value = self.take(bits)? as i32;
        Ok(if bits > 0 && value < 1 << (bits - 1) { value - (1 << bits) + 1 } else { value })
    }

    /// Goes behind a restart marker (F.2.2.4).
    fn restart(&mut self, number: u8) -> Decoded<()> {
        (self.held, self.count) = (0, 0);
        match self.bytes.get(self.at..self.at + 2) {
            Some([0xFF, marker]) if *marker == 0xD0 + number => {
                self.at += 2;
                Ok(())
            }
            _ => broken("a restart marker is not where it should be"),
        }
    }
}

/// What the header says.
#[derive(Default)]
struct Frame {
    rows: usize,
    columns: usize,
    component: u8,
    quantization: usize,
}

/// What the marker segments before the scan have said.
#[derive(Default)]
struct Header {
    quantization: [Option<[u16; BLOCK]>; 4],
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    restart_interval: usize,
    frame: Option<Frame>,
}

/// Decodes a stream; `rows × columns` samples of 0 to 4095.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn decode(stream: &[u8], rows: u32, columns: u32) -> Decoded<Vec<u16>> {
    let mut header = Header::default();
    let mut rest = stream.strip_prefix(&[0xFF, 0xD8]).ok_or("it does not begin as JPEG does")?;
    loop {
        let at = rest.iter().position(|byte| *byte != 0xFF).filter(|at| *at > 0).ok_or("it has no scan")?;
        let (marker, after) = (rest[at], &rest[at + 1..]);
        let length = match after {
            [high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
            _ => return broken("it has no scan"),
        };
        let Some(segment) = after.get(2..length) else { return broken("a marker segment is longer than the stream") };
        match marker {
            0xDB => header.quantization_tables(segment)?,
            0xC4 => header.huffman_tables(segment)?,
            0xDD => header.restart_interval(segment)?,
            0xC1 => header.frame(segment)?,
            0xC0..=0xCF => return broken(format!("its process (SOF{}) is not supported", marker - 0xC0)),
            0xDA => {
                let Some(frame) = &header.frame else { return broken("its scan comes before its frame") };
                if (frame.rows, frame.columns) != (rows as usize, columns as usize) {
                    return broken(format!("it is of {} rows × {} columns", frame.rows, frame.columns));
                }
                return header.scan(frame, segment, &after[length..]);
            }
            0xD8 | 0xD9 => return broken("it has no scan"),
            _ => {}
        }
        rest = &after[length..];
    }
}

impl Header {
    /// DQT (B.2.4.1).
    fn quantization_tables(&mut self, mut segment: &[u8]) -> Decoded<()> {
        while let [which, values @ ..] = segment {
            let bytes = if which >> 4 == 0 { 1 } else { 2 };
            let Some((values, rest)) = values.split_at_checked(BLOCK * bytes) else {
                return broken("a quantization table is cut off");
            };
            let value = |value: &[u8]| value.iter().fold(0u16, |all, byte| all << 8 | u16::from(*byte));
            let mut table = [0; BLOCK];
            for (place, value) in table.iter_mut().zip(values.chunks_exact(bytes).map(value)) {
                *place = value;
            }
            *self.quantization.get_mut(usize::from(which & 15)).ok_or("there are four quantization tables")? =
                Some(table);
            segment = rest;
        }
        Ok(())
    }

    /// DHT (B.2.4.2).
    fn huffman_tables(&mut self, mut segment: &[u8]) -> Decoded<()> {
        while let [which, rest @ ..] = segment {
            let Some((counts, rest)) = rest.split_at_checked(16) else { return broken("a Huffman table is cut off") };
            let count = counts.iter().map(|count| usize::from(*count)).sum();
            let Some((symbols, rest)) = rest.split_at_checked(count) else {
                return broken("a Huffman table is cut off");
            };
            let tables = if which >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            *tables.get_mut(usize::from(which & 15)).ok_or("there are four Huffman tables of a kind")? =
                Some(Table::new(counts, symbols)?);
            segment = rest;
        }
        Ok(())
    }

    /// DRI (B.2.4.4).
    fn restart_interval(&mut self, segment: &[u8]) -> Decoded<()> {
        let interval = segment.try_into().map_err(|_| "the restart interval is no number")?;
        self.restart_interval = usize::from(u16::from_be_bytes(interval));
        Ok(())
    }

    /// SOF1 (B.2.2).
    fn frame(&mut self, segment: &[u8]) -> Decoded<()> {
        let [12, r0, r1, c0, c1, 1, component, _, table] = segment else {
            return broken("it is not of one component of 12 bits");
        };
        self.frame = Some(Frame {
            rows: u16::from_be_bytes([*r0, *r1]).into(),
            columns: u16::from_be_bytes([*c0, *c1]).into(),
            component: *component,
            quantization: usize::from(*table),
        });
        Ok(())
    }

    /// SOS (B.2.3) and what follows it, block by block.
    fn scan(&self, frame: &Frame, segment: &[u8], coded: &[u8]) -> Decoded<Vec<u16>> {
        let [1, component, tables, 0, 63, 0] = segment else { return broken("its scan is not of one whole component") };
        if *component != frame.component {
            return broken("its scan is of another component than its frame");
        }
        let missing = "its scan needs a table that is not there";
        let table = |tables: &'_ [Option<Table>; 4], index: u8| tables.get(usize::from(index)).cloned().flatten();
        let (Some(dc), Some(ac)) = (table(&self.dc, tables >> 4), table(&self.ac, tables & 15)) else {
            return broken(missing);
        };
        let quantization = self.quantization.get(frame.quantization).copied().flatten().ok_or(missing)?;
        let cosines = cosines();
        let (across, down) = (frame.columns.div_ceil(SIDE), frame.rows.div_ceil(SIDE));
        let mut samples = vec![0u16; frame.rows * frame.columns];
        let mut bits = Bits { bytes: coded, at: 0, held: 0, count: 0 };
        let mut before = 0i32;
        for index in 0..across * down {
            if self.restart_interval > 0 && index > 0 && index % self.restart_interval == 0 {
                bits.restart((index / self.restart_interval - 1) as u8 % 8)?;
                before = 0;
            }
            let coefficients = block(&mut bits, &dc, &ac, &quantization, &mut before)?;
            let values = transform(&coefficients, &cosines);
            let (top, left) = (index / across * SIDE, index % across * SIDE);
            for row in top..(top + SIDE).min(frame.rows) {
                for column in left..(left + SIDE).min(frame.columns) {
                    let value = values[(row - top) * SIDE + column - left] + MIDDLE;
                    samples[row * frame.columns + column] = value.round().clamp(0.0, MOST) as u16;
                }
            }
        }
        Ok(samples)
    }
}

/// One block's coefficients, dequantized (F.2.2.1 and F.2.2.2).
fn block(
    bits: &mut Bits<'_>,
    dc: &Table,
    ac: &Table,
    quantization: &[u16; BLOCK],
    before: &mut i32,
) -> Decoded<[f32; BLOCK]> {
    let mut coefficients = [0.0; BLOCK];
    let size = bits.symbol(dc)?;
    if size > 15 {
        return broken("a difference has more than 15 bits");
    }
    *before = before.wrapping_add(bits.signed(size.into())?);
    coefficients[0] = *before as f32 * f32::from(quantization[0]);
    let mut at = 1;
    while at < BLOCK {
        let symbol = bits.symbol(ac)?;
        let (zeroes, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        match (zeroes, size) {
            (15, 0) => at += 16,
            (_, 0) => break,
            _ => {
                at += zeroes;
                let value = bits.signed(size)?;
                let Some(place) = ZIGZAG.get(at) else { return broken("a block has more than 64 coefficients") };
                coefficients[*place] = value as f32 * f32::from(quantization[at]);
                at += 1;
            }
        }
    }
    Ok(coefficients)
}

/// Half of each basis function, by sample and frequency (A.3.3).
fn cosines() -> [[f32; SIDE]; SIDE] {
    std::array::from_fn(|sample| {
        std::array::from_fn(|frequency| {
            let scale = if frequency == 0 { std::f64::consts::FRAC_1_SQRT_2 } else { 1.0 };
            let angle = (2 * sample + 1) as f64 * frequency as f64 * std::f64::consts::PI / 16.0;
            (0.5 * scale * angle.cos()) as f32
        })
    })
}

/// The inverse transform, by rows and then by columns.
fn transform(coefficients: &[f32; BLOCK], cosines: &[[f32; SIDE]; SIDE]) -> [f32; BLOCK] {
    let mut rows = [0.0; BLOCK];
    for row in 0..SIDE {
        for (sample, basis) in cosines.iter().enumerate() {
            let line = &coefficients[row * SIDE..(row + 1) * SIDE];
            rows[row * SIDE + sample] = line.iter().zip(basis).map(|(c, b)| c * b).sum();
        }
    }
    std::array::from_fn(|at| {
        let (basis, column) = (&cosines[at / SIDE], at % SIDE);
        (0..SIDE).map(|row| rows[row * SIDE + column] * basis[row]).sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream of 8 × 8 samples with one coefficient, written by hand: DC difference −100 in 7 bits, then end of block.
    fn tiny() -> Vec<u8> {
        let mut stream = vec![0xFF, 0xD8, 0xFF, 0xDB, 0, 67, 0];
        stream.extend([16; BLOCK]);
        stream.extend([0xFF, 0xC1, 0, 11, 12, 0, 8, 0, 8, 1, 1, 0x11, 0]);
        // One code of one bit each: "0" stands for seven bits of DC, and for the end of a block.
        let table = |kind: u8, symbol: u8| {
            let mut bytes = vec![0xFF, 0xC4, 0, 20, kind, 1];
            bytes.extend([0; 15]);
            bytes.push(symbol);
            bytes
        };
        stream.extend(table(0, 7));
        stream.extend(table(0x10, 0));
        stream.extend([0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 63, 0]);
        // 0, 0011011 (-100), 0, then ones to the end of the byte.
        stream.extend([0b0001_1011, 0b0111_1111, 0xFF, 0xD9]);
        stream
    }

    #[test]
    fn a_block_of_one_value() {
        // −100 × 16 / 8 = −200 from the middle.
        assert_eq!(decode(&tiny(), 8, 8), Ok(vec![1848; 64]));
        assert!(decode(&tiny(), 8, 9).unwrap_err().contains("8 rows × 8 columns"));
    }

    #[test]
    fn each_cut_is_refused_and_no_change_panics() {
        let whole = tiny();
        let scan = whole.len() - 4;
        for cut in 0..whole.len() - 2 {
            // The last bit that counts is the first of the second byte.
            assert_eq!(decode(&whole[..cut], 8, 8).is_err(), cut < scan + 2, "{cut} of {}", whole.len());
        }
        for at in 0..whole.len() {
            for flip in [0x01, 0x10, 0x80, 0xFF] {
                let mut changed = whole.clone();
                changed[at] ^= flip;
                let _ = decode(&changed, 8, 8);
            }
        }
    }
}
