-- What an attempt sent beside the announcement's body, and how it was answered: enough to show both and to check the
-- signature again. NULL throughout: the attempt is an earlier release's, or nothing left this machine.
ALTER TABLE webhook_attempts
    ADD COLUMN sent_s BIGINT NULL,               -- `webhook-timestamp`: seconds since 1970-01-01 UTC
    ADD COLUMN signature VARCHAR(64) NULL,       -- `webhook-signature`
    ADD COLUMN legacy_signature CHAR(64) NULL,   -- `x-webhook-signature`
    ADD COLUMN trace VARCHAR(55) NULL,           -- `traceparent`
    ADD COLUMN answer_type VARCHAR(128) NULL,    -- `content-type` of the answer
    ADD COLUMN answer VARCHAR(2048) NULL,        -- the beginning of the answer's body; only of configured endpoints
    ADD COLUMN answer_cut TINYINT NULL;          -- 1: there was more of it

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
