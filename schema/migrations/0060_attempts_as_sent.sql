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
