-- The trace that an announcement belongs to (W3C `traceparent` of its event), sent on with it; NULL: the task's own id is
-- its trace.
ALTER TABLE webhook_outbox ADD COLUMN trace VARCHAR(55) NULL;
