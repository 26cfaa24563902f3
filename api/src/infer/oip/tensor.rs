//! Tensors of the Open Inference Protocol: JSON numbers and texts, or little-endian bytes (the binary data extension).

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Most items of one request.
pub(super) const MAX_ITEMS: u64 = 1_024;
/// Most elements of a tensor: some pictures.
const MAX_ELEMENTS: u64 = 1 << 20;
/// Most dimensions of a tensor.
const MAX_RANK: usize = 8;

/// What an element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    /// Texts, here: UTF-8.
    Bytes,
}

/// A tensor as it was sent; its first dimension counts the items.
#[derive(Debug)]
pub(super) struct Tensor<'a> {
    pub(super) name: Cow<'a, str>,
    datatype: Datatype,
    /// Without the first dimension.
    inner: Vec<u64>,
    pub(super) items: u64,
    elements: Elements<'a>,
}

#[derive(Debug)]
enum Elements<'a> {
    /// Each as JSON text, row-major.
    Json(Vec<&'a str>),
    /// All of one size.
    Sized(&'a [u8]),
    Texts(Vec<&'a str>),
}

/// What is wrong, and with which member of the tensor.
pub(super) type Fault = (&'static str, String);

impl Datatype {
    const ALL: [(&'static str, Self); 14] = [
        ("BOOL", Self::Bool),
        ("UINT8", Self::Uint8),
        ("UINT16", Self::Uint16),
        ("UINT32", Self::Uint32),
        ("UINT64", Self::Uint64),
        ("INT8", Self::Int8),
        ("INT16", Self::Int16),
        ("INT32", Self::Int32),
        ("INT64", Self::Int64),
        ("FP16", Self::Fp16),
        ("BF16", Self::Bf16),
        ("FP32", Self::Fp32),
        ("FP64", Self::Fp64),
        ("BYTES", Self::Bytes),
    ];

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, datatype)| datatype)
    }

    pub(super) fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, datatype)| *datatype == self).map_or("BYTES", |(name, _)| name)
    }

    /// Bytes of an element; `None` when each says its own.
    fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }

    /// Whole numbers: the least and the greatest.
    fn range(self) -> Option<(i128, i128)> {
        match self {
            Self::Uint8 => Some((0, u8::MAX.into())),
            Self::Uint16 => Some((0, u16::MAX.into())),
            Self::Uint32 => Some((0, u32::MAX.into())),
            Self::Uint64 => Some((0, u64::MAX.into())),
            Self::Int8 => Some((i8::MIN.into(), i8::MAX.into())),
            Self::Int16 => Some((i16::MIN.into(), i16::MAX.into())),
            Self::Int32 => Some((i32::MIN.into(), i32::MAX.into())),
            Self::Int64 => Some((i64::MIN.into(), i64::MAX.into())),
            _ => None,
        }
    }
}

impl<'a> Tensor<'a> {
    /// A tensor whose data stand in the request's JSON, nested or flat.
    pub(super) fn of_json(
        name: Cow<'a, str>,
        datatype: &str,
        shape: &[u64],
        data: &'a RawValue,
    ) -> Result<Self, Fault> {
        let (datatype, count) = head(datatype, shape)?;
        let mut elements = Vec::with_capacity(usize::try_from(count).unwrap_or(0).min(data.get().len()));
        let most = usize::try_from(count).unwrap_or(usize::MAX);
        flatten(data.get(), 0, most, &mut elements).map_err(|why| ("data", why))?;
        if elements.len() as u64 != count {
            let got = if elements.len() > most { "more".to_owned() } else { elements.len().to_string() };
            return Err(("data", format!("must have {count} elements, as the shape says, and has {got}")));
        }
        for element in &elements {
            check(datatype, element).map_err(|why| ("data", why))?;
        }
        Ok(Self::new(name, datatype, shape, Elements::Json(elements)))
    }

    /// A tensor whose data follow the request's JSON.
    pub(super) fn of_bytes(name: Cow<'a, str>, datatype: &str, shape: &[u64], bytes: &'a [u8]) -> Result<Self, Fault> {
        let (datatype, count) = head(datatype, shape)?;
        let wrong = |why: String| ("parameters/binary_data_size", why);
        let elements = match datatype.size() {
            Some(size) if (bytes.len() as u64) == count.saturating_mul(size as u64) => Elements::Sized(bytes),
            Some(size) => {
                let (got, name) = (bytes.len(), datatype.name());
                return Err(wrong(format!("is {got}; {count} elements of {name} take {size} bytes each")));
            }
            None => Elements::Texts(texts(bytes, count).map_err(wrong)?),
        };
        Ok(Self::new(name, datatype, shape, elements))
    }

    fn new(name: Cow<'a, str>, datatype: Datatype, shape: &[u64], elements: Elements<'a>) -> Self {
        Self { name, datatype, items: shape[0], inner: shape[1..].to_vec(), elements }
    }

    /// Whether each item is one element, whatever the number of dimensions.
    pub(super) fn is_scalar(&self) -> bool {
        self.inner.iter().all(|size| *size == 1)
    }

    /// The item's value as JSON. A tensor of scalars gives the scalar itself unless `nested` is asked for.
    pub(super) fn write(&self, item: u64, nested: bool, out: &mut String) -> Result<(), Fault> {
        let each: u64 = self.inner.iter().product();
        let mut at = usize::try_from(item * each).unwrap_or(usize::MAX);
        let inner = if nested { self.inner.as_slice() } else { &[] };
        self.write_nested(inner, &mut at, out).map_err(|why| ("data", why))
    }

    /// The item as a text.
    pub(super) fn text(&self, item: u64) -> Result<Cow<'a, str>, Fault> {
        let at = usize::try_from(item).unwrap_or(usize::MAX);
        match &self.elements {
            Elements::Texts(texts) if self.is_scalar() => Ok(Cow::Borrowed(texts[at])),
            Elements::Json(elements) if self.is_scalar() && self.datatype == Datatype::Bytes => {
                serde_json::from_str(elements[at])
                    .map(Cow::Owned)
                    .map_err(|error| ("data", format!("is no text: {}", crate::document::explain(&error))))
            }
            _ => Err(("datatype", "must be BYTES, one element an item".to_owned())),
        }
    }

    fn write_nested(&self, dimensions: &[u64], at: &mut usize, out: &mut String) -> Result<(), String> {
        let Some((size, rest)) = dimensions.split_first() else {
            self.write_element(*at, out)?;
            *at += 1;
            return Ok(());
        };
        out.push('[');
        for index in 0..*size {
            if index > 0 {
                out.push(',');
            }
            self.write_nested(rest, at, out)?;
        }
        out.push(']');
        Ok(())
    }

    fn write_element(&self, at: usize, out: &mut String) -> Result<(), String> {
        match &self.elements {
            Elements::Json(elements) => out.push_str(elements[at]),
            Elements::Texts(texts) => write_text(texts[at], out),
            Elements::Sized(bytes) => {
                let size = self.datatype.size().unwrap_or(1);
                write_number(self.datatype, &bytes[at * size..(at + 1) * size], out)?;
            }
        }
        Ok(())
    }
}

/// Datatype and number of elements, when both make sense.
fn head(datatype: &str, shape: &[u64]) -> Result<(Datatype, u64), Fault> {
    let Some(known) = Datatype::parse(datatype) else {
        let known = Datatype::ALL.map(|(name, _)| name).join(", ");
        return Err(("datatype", format!("must be one of {known}")));
    };
    let wrong = |why: String| Err(("shape", why));
    if shape.is_empty() || shape.len() > MAX_RANK {
        return wrong(format!("must have 1 to {MAX_RANK} dimensions; the first counts the items"));
    }
    if shape.contains(&0) {
        return wrong("must have no dimension of size 0".to_owned());
    }
    if shape[0] > MAX_ITEMS {
        return wrong(format!("has {} items; a request may have {MAX_ITEMS}", shape[0]));
    }
    match shape.iter().try_fold(1_u64, |product, size| product.checked_mul(*size)) {
        Some(count) if count > MAX_ELEMENTS => wrong(format!("has {count} elements; a tensor may have {MAX_ELEMENTS}")),
        Some(count) => Ok((known, count)),
        None => wrong("has more elements than can be counted".to_owned()),
    }
}

/// The elements of nested or flat JSON arrays, in order; those beyond `most` are passed over, except for one that tells of
/// them.
fn flatten<'a>(json: &'a str, depth: usize, most: usize, into: &mut Vec<&'a str>) -> Result<(), String> {
    struct Array<'i, 'a>(&'i mut Vec<&'a str>, usize, usize);
    impl<'de: 'a, 'a> Visitor<'de> for Array<'_, 'a> {
        type Value = Result<(), String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            while let Some(element) = seq.next_element::<&'de RawValue>()? {
                let element = element.get();
                if element.starts_with('[') {
                    if let Err(why) = flatten(element, self.1 + 1, self.2, self.0) {
                        return Ok(Err(why));
                    }
                } else if self.0.len() <= self.2 {
                    self.0.push(element);
                }
            }
            Ok(Ok(()))
        }
    }
    if depth >= MAX_RANK {
        return Err(format!("is nested deeper than {MAX_RANK} levels"));
    }
    let mut json = serde_json::Deserializer::from_str(json);
    (&mut json).deserialize_seq(Array(into, depth, most)).unwrap_or_else(|_| Err("must be an array".to_owned()))
}

/// Whether a JSON value is of the datatype. Texts are looked through when the document is read.
fn check(datatype: Datatype, element: &str) -> Result<(), String> {
    let is_number = || element.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    let fits = match datatype {
        Datatype::Bytes => element.starts_with('"'),
        Datatype::Bool => matches!(element, "true" | "false"),
        Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64 => is_number(),
        whole => {
            let value = element.parse::<i128>().ok();
            whole.range().zip(value).is_some_and(|((least, most), value)| (least..=most).contains(&value))
        }
    };
    if fits { Ok(()) } else { Err(format!("has an element that is no {}", datatype.name())) }
}

/// `BYTES`: each element after its length (four bytes, little-endian).
fn texts(mut bytes: &[u8], count: u64) -> Result<Vec<&str>, String> {
    let mut texts = Vec::with_capacity(usize::try_from(count).unwrap_or(0).min(bytes.len() / 4));
    for at in 0..count {
        let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
            return Err(format!("the data end before element {at}"));
        };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > rest.len() {
            return Err(format!("the data end within element {at}"));
        }
        let (element, rest) = rest.split_at(length);
        texts.push(std::str::from_utf8(element).map_err(|_| format!("element {at} is no UTF-8"))?);
        bytes = rest;
    }
    if bytes.is_empty() { Ok(texts) } else { Err(format!("{} bytes follow the last element", bytes.len())) }
}

/// A number in little-endian bytes as JSON.
fn write_number(datatype: Datatype, bytes: &[u8], out: &mut String) -> Result<(), String> {
    let whole = |signed: bool| {
        let mut wide = [if signed && bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 }; 16];
        wide[..bytes.len()].copy_from_slice(bytes);
        i128::from_le_bytes(wide)
    };
    let bits = whole(false);
    let single = |value: f32| value.is_finite().then(|| serde_json::to_string(&value).unwrap_or_default());
    let written = match datatype {
        Datatype::Bool => match bits {
            0 => Some("false".to_owned()),
            1 => Some("true".to_owned()),
            _ => return Err("has an element that is no BOOL".to_owned()),
        },
        Datatype::Fp16 => single(half(bits as u16)),
        Datatype::Bf16 => single(f32::from_bits((bits as u32) << 16)),
        Datatype::Fp32 => single(f32::from_bits(bits as u32)),
        Datatype::Fp64 => {
            let value = f64::from_bits(bits as u64);
            value.is_finite().then(|| serde_json::to_string(&value).unwrap_or_default())
        }
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 | Datatype::Uint64 => Some(bits.to_string()),
        _ => Some(whole(true).to_string()),
    };
    let written = written.ok_or_else(|| "has an element that is no finite number".to_owned())?;
    write!(out, "{written}").map_err(|error| error.to_string())
}

/// IEEE 754 binary16.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from((bits >> 10) & 0x1f), f32::from(bits & 0x3ff));
    match exponent {
        0 => sign * fraction * 2.0_f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1.0 + fraction / 1024.0) * 2.0_f32.powi(exponent - 15),
    }
}

/// A text as a JSON string.
pub(super) fn write_text(text: &str, out: &mut String) {
    out.push_str(&serde_json::to_string(text).expect("a text is JSON"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(datatype: &str, shape: &[u64], data: &str) -> Result<Vec<String>, String> {
        let raw: &RawValue = serde_json::from_str(data).unwrap();
        items(Tensor::of_json("x".into(), datatype, shape, raw))
    }

    fn bytes(datatype: &str, shape: &[u64], data: &[u8]) -> Result<Vec<String>, String> {
        items(Tensor::of_bytes("x".into(), datatype, shape, data))
    }

    fn items(tensor: Result<Tensor<'_>, Fault>) -> Result<Vec<String>, String> {
        let told = |(place, why): Fault| format!("{place}: {why}");
        let tensor = tensor.map_err(told)?;
        let write = |item| {
            let mut out = String::new();
            tensor.write(item, true, &mut out).map(|()| out).map_err(told)
        };
        (0..tensor.items).map(write).collect()
    }

    #[test]
    fn data_are_read_nested_or_flat() {
        for (datatype, shape, data, expected) in [
            ("FP32", &[2, 2][..], "[[1, 2.5], [3e2, -4]]", &["[1,2.5]", "[3e2,-4]"][..]),
            ("FP32", &[2, 2], "[1,2,3,4]", &["[1,2]", "[3,4]"]),
            ("INT64", &[2], "[1, -9223372036854775808]", &["1", "-9223372036854775808"]),
            ("BYTES", &[2], r#"["a", "好\n"]"#, &["\"a\"", "\"好\\n\""]),
            ("BOOL", &[1, 2, 1], "[[[true],[false]]]", &["[[true],[false]]"]),
        ] {
            assert_eq!(json(datatype, shape, data).unwrap(), expected, "{data}");
        }
    }

    #[test]
    fn data_that_do_not_fit_are_refused_with_their_member() {
        for (datatype, shape, data, part) in [
            ("FP8", &[1][..], "[1]", "datatype: must be one of BOOL"),
            ("FP32", &[], "[1]", "shape: must have 1 to 8"),
            ("FP32", &[1; 9], "[1]", "shape: must have 1 to 8"),
            ("FP32", &[0], "[]", "shape: must have no dimension of size 0"),
            ("FP32", &[1, u64::MAX, 0], "[]", "shape: must have no dimension of size 0"),
            ("FP32", &[1_025], "[]", "shape: has 1025 items"),
            ("FP32", &[2, u64::MAX], "[]", "shape: has more elements than can be counted"),
            ("FP32", &[1, u64::MAX], "[1]", "shape: has 18446744073709551615 elements; a tensor may have 1048576"),
            ("FP32", &[2], "[1,2,[3,4]]", "data: must have 2 elements, as the shape says, and has more"),
            ("FP32", &[2], "[1]", "data: must have 2 elements, as the shape says, and has 1"),
            ("FP32", &[1], "1", "data: must be an array"),
            ("FP32", &[1], "\"x\"", "data: must be an array"),
            ("FP32", &[1], "[\"1\"]", "data: has an element that is no FP32"),
            ("FP32", &[1], "[null]", "data: has an element that is no FP32"),
            ("UINT8", &[1], "[256]", "data: has an element that is no UINT8"),
            ("INT8", &[1], "[1.5]", "data: has an element that is no INT8"),
            ("BOOL", &[1], "[1]", "data: has an element that is no BOOL"),
            ("BYTES", &[1], "[{}]", "data: has an element that is no BYTES"),
            ("BYTES", &[1], "[[[[[[[[[[1]]]]]]]]]]", "data: is nested deeper than 8 levels"),
        ] {
            let error = json(datatype, shape, data).unwrap_err();
            assert!(error.starts_with(part), "{data}: {error}");
        }
    }

    #[test]
    fn binary_data_are_read_little_endian() {
        for (datatype, shape, data, expected) in [
            ("BYTES", &[2][..], &b"\x01\0\0\0a\x03\0\0\0\xe5\xa5\xbd"[..], &["\"a\"", "\"好\""][..]),
            ("BYTES", &[1, 1], b"\0\0\0\0", &["[\"\"]"]),
            ("INT32", &[2], &[255, 255, 255, 255, 1, 0, 0, 0], &["-1", "1"]),
            ("UINT8", &[2], &[255, 7], &["255", "7"]),
            ("INT8", &[1], &[255], &["-1"]),
            ("UINT64", &[1], &[255; 8], &["18446744073709551615"]),
            ("FP32", &[1, 2], &[0, 0, 128, 63, 0, 0, 0, 192], &["[1.0,-2.0]"]),
            ("FP64", &[1], &0.1_f64.to_le_bytes(), &["0.1"]),
            ("FP16", &[3], &[0x00, 0x3c, 0x00, 0xc0, 0x01, 0x00], &["1.0", "-2.0", "5.9604645e-8"]),
            ("BF16", &[1], &[0x80, 0x3f], &["1.0"]),
            ("BOOL", &[2], &[0, 1], &["false", "true"]),
        ] {
            assert_eq!(bytes(datatype, shape, data).unwrap(), expected, "{datatype}");
        }
    }

    #[test]
    fn binary_data_of_a_wrong_length_are_refused() {
        for (datatype, shape, data, part) in [
            ("FP32", &[2][..], &[0; 4][..], "is 4; 2 elements of FP32 take 4 bytes each"),
            ("FP32", &[1, 1 << 20], &[0; 4], "is 4; "),
            ("BYTES", &[1], b"\x05\0\0\0a", "the data end within element 0"),
            ("BYTES", &[1], b"\xff\xff\xff\xffa", "the data end within element 0"),
            ("BYTES", &[2], b"\x01\0\0\0a", "the data end before element 1"),
            ("BYTES", &[1], b"\x01\0\0\0ab", "1 bytes follow the last element"),
            ("BYTES", &[1], b"\x01\0\0\0\xff", "element 0 is no UTF-8"),
        ] {
            let error = bytes(datatype, shape, data).unwrap_err();
            assert!(error.starts_with(&format!("parameters/binary_data_size: {part}")), "{error}");
        }
        assert_eq!(
            bytes("FP32", &[1], &f32::NAN.to_le_bytes()).unwrap_err(),
            "data: has an element that is no finite number"
        );
        assert_eq!(bytes("FP16", &[1], &[0, 0x7c]).unwrap_err(), "data: has an element that is no finite number");
        assert_eq!(bytes("BOOL", &[1], &[2]).unwrap_err(), "data: has an element that is no BOOL");
    }
}
