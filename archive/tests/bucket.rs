//! Segments in a bucket, over S3's protocol.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

#[path = "../../tests/shared/bucket.rs"]
mod bucket;

use bucket::Bucket;
use futures_util::TryStreamExt;
use insightforge_archive::store::Put;
use insightforge_archive::{Archive, ArchiveError};
use insightforge_schema::id::Partition;
use insightforge_schema::journal::Entry;
use object_store::ObjectStoreExt;

const PART: Partition = Partition(1);
const TASK: &str = "0190a4c2-0000-7000-8000-000000000001";

fn entries(numbers: std::ops::RangeInclusive<u64>, worker: &str) -> Vec<Entry> {
    let entry = |n| Entry {
        id: format!("0-{n}"),
        event_type: "processing".to_owned(),
        task: TASK.to_owned(),
        first: "1".to_owned(),
        bytes: worker.as_bytes().to_vec(),
    };
    numbers.map(entry).collect()
}

fn open(bucket: &Bucket, options: Vec<(String, String)>) -> Archive {
    Archive::open(&bucket.url("journal"), options, "if").unwrap()
}

#[tokio::test]
async fn segments_in_a_bucket_are_written_once_listed_and_read_block_by_block() {
    let bucket = Bucket::serve();
    let archive = open(&bucket, bucket.options());
    assert_eq!(archive.segments(PART).await.unwrap(), []);
    // More than one block, so that ranges are asked for.
    let word = "w".repeat(5_000);
    let (first, second) = (entries(1..=200, &word), entries(201..=300, &word));
    assert_eq!(archive.put(PART, &first).await.unwrap(), Put::Written);
    assert_eq!(archive.put(PART, &second).await.unwrap(), Put::Written);
    assert_eq!(archive.put(PART, &first).await.unwrap(), Put::WasThere);
    let other = archive.put(PART, &entries(1..=200, "another")).await.unwrap_err();
    assert!(matches!(other, ArchiveError::Other { .. }), "{other}");

    let again = open(&bucket, bucket.options());
    assert_eq!(again.segments(PART).await.unwrap().len(), 2);
    assert_eq!(again.reaches_back(PART, 300).await.unwrap(), 1);
    for n in [1, 100, 200, 201, 300] {
        let read = again.read(PART, n, 300).await.unwrap();
        let expected: Vec<Entry> = first.iter().chain(&second).skip(n as usize - 1).take(read.len()).cloned().collect();
        assert!(!read.is_empty() && read == expected, "from {n}");
    }
    assert_eq!(again.read(PART, 301, 400).await.unwrap(), []);
}

#[tokio::test]
async fn a_damaged_segment_in_a_bucket_and_a_bucket_that_is_not_there_are_errors_that_name_it() {
    let bucket = Bucket::serve();
    let archive = open(&bucket, bucket.options());
    archive.put(PART, &entries(1..=20, "w")).await.unwrap();
    let object = bucket.objects().list(None).try_next().await.unwrap().unwrap();
    bucket.objects().put(&object.location, "no segment".into()).await.unwrap();
    let damaged = open(&bucket, bucket.options()).read(PART, 1, 20).await.unwrap_err();
    assert!(matches!(damaged, ArchiveError::Corrupt { .. }), "{damaged}");

    let gone = Archive::open("s3://no-such-shelf/journal", bucket.options(), "if").unwrap();
    let gone = gone.put(PART, &entries(1..=2, "w")).await.unwrap_err();
    assert!(matches!(gone, ArchiveError::Objects { .. }), "{gone}");
    assert!(
        gone.to_string().contains("s3://no-such-shelf/journal") && !gone.to_string().contains("shelf-word"),
        "{gone}"
    );
}
