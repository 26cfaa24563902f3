-- Rebuilds of these tables: how far one is, and what the last ones found. Written by the rebuild, derived from nothing, and
-- never rebuilt.
CREATE TABLE rebuilds (
    n BIGINT UNSIGNED NOT NULL,                  -- its beginning, in microseconds since 1970-01-01 UTC: there is one at a time
    owner VARCHAR(255) NOT NULL,                 -- who does it, for people
    state VARCHAR(16) NOT NULL,                  -- loading, indexing, comparing, swapping; swapped, different, failed
    events BIGINT UNSIGNED NOT NULL,             -- folded so far
    events_whole BIGINT UNSIGNED NULL,           -- of so many when it began
    report JSON NULL,                            -- counts and checksums of both sets of tables, once they are compared
    error TEXT NULL,                             -- why it failed
    started_at DATETIME(6) NOT NULL,
    updated_at DATETIME(6) NOT NULL,             -- moves every second while it lives
    ended_at DATETIME(6) NULL,
    PRIMARY KEY (n)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
