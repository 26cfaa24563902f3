//! Numbers in a model's file: little endian, and LEB128 for those that are mostly small. Reading believes nothing.

/// Why a file is not a model's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a tagger's file: {0}")]
pub struct Broken(pub(crate) &'static str);

pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Broken("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Broken> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Broken> {
        let bytes = self.take(2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    pub(crate) fn f32(&mut self) -> Result<f32, Broken> {
        let bytes = self.take(4)?;
        let number = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        if number.is_finite() { Ok(number) } else { Err(Broken("a weight is not a number")) }
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Broken> {
        let mut number = 0_u64;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Broken("a number is too long"))
    }

    /// How many items follow, each of which takes at least a byte: so no file makes us reserve more than its own length.
    pub(crate) fn count(&mut self) -> Result<usize, Broken> {
        let count = self.varint()?;
        usize::try_from(count)
            .ok()
            .filter(|&count| count <= self.0.len())
            .ok_or(Broken("a count is larger than the file"))
    }
}

pub(crate) fn write_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number as u8 & 0x7f) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Rising numbers, by their differences: a difference's low bits as they are, the rest as so many ones and a zero (Rice's
/// code), which takes about two bits more than the mean difference has.
pub(crate) fn write_rising(out: &mut Vec<u8>, numbers: &[u64]) {
    write_varint(out, numbers.len() as u64);
    let mean = numbers.last().map_or(0, |last| last / numbers.len() as u64);
    let low = mean.max(1).ilog2();
    out.push(low as u8);
    let (mut bits, mut count, mut before) = (0_u64, 0_u32, 0_u64);
    let mut push = |bit: u64| {
        bits |= bit << count;
        count += 1;
        if count == 8 {
            out.push(bits as u8);
            (bits, count) = (0, 0);
        }
    };
    for number in numbers {
        let step = number - before;
        before = *number;
        (0..step >> low).for_each(|_| push(1));
        push(0);
        (0..low).for_each(|at| push(step >> at & 1));
    }
    if count > 0 {
        out.push(bits as u8);
    }
}

impl Reader<'_> {
    /// What [`write_rising`] wrote; each larger than the one before.
    pub(crate) fn rising(&mut self) -> Result<Vec<u64>, Broken> {
        let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        let low = u32::from(self.byte()?);
        // A number takes more than its low bits, so a count beyond that is a lie that would have us reserve memory.
        if low > 40 || count > self.0.len().saturating_mul(8) / (low as usize + 1) {
            return Err(Broken("a count is larger than the file"));
        }
        let mut bits = Bits { bytes: self.0, at: 0 };
        let mut numbers = Vec::with_capacity(count);
        let mut number = 0_u64;
        for at in 0..count {
            let mut high = 0_u64;
            while bits.next()? == 1 {
                high += 1;
            }
            let mut step = high << low;
            for at in 0..low {
                step |= bits.next()? << at;
            }
            let next = number.checked_add(step).filter(|_| at == 0 || step > 0);
            number = next.ok_or(Broken("numbers are out of order"))?;
            numbers.push(number);
        }
        let used = bits.at.div_ceil(8);
        self.take(used)?;
        Ok(numbers)
    }
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    #[inline]
    fn next(&mut self) -> Result<u64, Broken> {
        let byte = self.bytes.get(self.at / 8).ok_or(Broken("it ends too early"))?;
        let bit = u64::from(byte >> (self.at % 8) & 1);
        self.at += 1;
        Ok(bit)
    }
}
