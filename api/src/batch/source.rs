//! Where a batch's bytes come from: the body itself, or the file in a form. Only what has been asked for is read.

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use futures_util::stream::{self, BoxStream, StreamExt};
use multer::{Constraints, Field, Multipart, SizeLimit};

use crate::batch::line::Format;
use crate::body::{BodyFault, Incoming};
use crate::problem::{Fields, Problem};
use crate::sent::{Media, malformed, short};

/// What may be sent.
const TAKEN: &str = "application/x-ndjson, text/csv, or multipart/form-data with a file";
/// The longest text field of a form, in bytes, and how many there may be before the file.
const MAX_TEXT_BYTES: u64 = 1_024;
const MAX_TEXTS: usize = 16;

/// A batch on its way in.
pub(crate) struct Source {
    pieces: Pieces,
    pub(crate) format: Format,
    /// The name of what holds the lines, for messages.
    pub(crate) name: &'static str,
    /// The form's text fields before the file.
    pub(crate) texts: Vec<(String, String)>,
}

enum Pieces {
    Body(Incoming),
    File { file: Box<Option<Field<'static>>>, form: Multipart<'static> },
}

impl Source {
    /// Reads up to the first byte of the lines. `format` is what the caller said it is, if anything.
    pub(crate) async fn open(
        headers: &HeaderMap,
        body: Body,
        limit: u64,
        format: Option<Format>,
    ) -> Result<Self, Problem> {
        let media = Media::of(headers);
        let known = match media {
            Media::Lines => Some(Format::Lines),
            Media::Csv => Some(Format::Csv),
            Media::Parts(_) => None,
            _ => return Err(media.refuse(TAKEN)),
        };
        let incoming = Incoming::new(headers, body, limit).await?;
        match (media, known) {
            (Media::Parts(boundary), _) => Self::open_form(incoming, &boundary, format).await,
            (_, known) => {
                let format = format.or(known).unwrap_or(Format::Lines);
                Ok(Self { pieces: Pieces::Body(incoming), format, name: "body", texts: Vec::new() })
            }
        }
    }

    async fn open_form(incoming: Incoming, boundary: &str, format: Option<Format>) -> Result<Self, Problem> {
        let limits = SizeLimit::new().per_field(u64::MAX);
        let constraints = Constraints::new().size_limit(limits);
        let mut form = Multipart::with_constraints(pieces_of(incoming), boundary, constraints);
        let mut texts = Vec::new();
        loop {
            let part = form.next_field().await.map_err(broken_form)?;
            let Some(mut part) = part else {
                let what = "is missing: the form has no part named file, or no part with a file name";
                return Err(Problem::invalid(Fields::one("file", what)));
            };
            let name = part.name().unwrap_or("").to_owned();
            if part.file_name().is_some() || name == "file" {
                let format = format.or_else(|| format_of(&part)).ok_or_else(|| {
                    let what =
                        "is neither CSV nor JSON Lines by its name or type; say so with format=csv or format=jsonl";
                    Problem::invalid(Fields::one("file", what))
                })?;
                let pieces = Pieces::File { file: Box::new(Some(part)), form };
                return Ok(Self { pieces, format, name: "file", texts });
            }
            let value = text(&mut part, &name).await?;
            if texts.len() >= MAX_TEXTS {
                return Err(malformed("the form has too many fields before its file"));
            }
            texts.push((name, value));
        }
    }

    /// The next piece of the lines; `None` at their end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        match &mut self.pieces {
            Pieces::Body(incoming) => Ok(incoming.next().await?),
            Pieces::File { file, .. } => match file.as_mut() {
                Some(file) => file.chunk().await.map_err(broken_form),
                None => Ok(None),
            },
        }
    }

    /// Reads what follows the file in a form, whose end tells that nothing is missing; gives the names of fields that
    /// came too late to count.
    pub(crate) async fn finish(&mut self) -> Result<Vec<String>, Problem> {
        let mut late = Vec::new();
        if let Pieces::File { file, form } = &mut self.pieces {
            file.take();
            while let Some(part) = form.next_field().await.map_err(broken_form)? {
                if late.len() < MAX_TEXTS {
                    late.push(short(part.name().unwrap_or("")));
                }
            }
        }
        Ok(late)
    }
}

fn pieces_of(incoming: Incoming) -> BoxStream<'static, Result<Bytes, BodyFault>> {
    stream::try_unfold(incoming, async |mut incoming| {
        let piece = incoming.next().await?;
        Ok(piece.map(|piece| (piece, incoming)))
    })
    .boxed()
}

fn format_of(part: &Field<'_>) -> Option<Format> {
    let by_type = part.content_type().and_then(|media| match Media::parse(media.as_ref()) {
        Media::Csv => Some(Format::Csv),
        Media::Lines => Some(Format::Lines),
        _ => None,
    });
    let name = part.file_name().unwrap_or("").to_ascii_lowercase();
    by_type.or_else(|| match name.rsplit_once('.')?.1 {
        "csv" => Some(Format::Csv),
        "jsonl" | "ndjson" => Some(Format::Lines),
        _ => None,
    })
}

async fn text(part: &mut Field<'_>, name: &str) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    while let Some(piece) = part.chunk().await.map_err(broken_form)? {
        if (bytes.len() + piece.len()) as u64 > MAX_TEXT_BYTES {
            let what = format!("must have {MAX_TEXT_BYTES} bytes at most");
            return Err(Problem::invalid(Fields::one(short(name), what)));
        }
        bytes.extend_from_slice(&piece);
    }
    String::from_utf8(bytes).map_err(|_| Problem::invalid(Fields::one(short(name), "is no UTF-8")))
}

/// A fault of the body comes back as itself; what else multer says is about the form.
fn broken_form(error: multer::Error) -> Problem {
    if let multer::Error::StreamReadFailed(source) = &error
        && let Some(fault) = source.downcast_ref::<BodyFault>()
    {
        return (*fault).into();
    }
    malformed(&format!("the form cannot be read: {error}"))
}
