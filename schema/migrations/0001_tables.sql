-- The read model. Every row is derived from the journal and can be rebuilt from it.
--
-- Keys: `id` is the position of the event that created the row, as number * 1024 + partition: no look-up, inserts append
-- to the index, a rebuild yields the same keys. Times are UTC. SQL common to MySQL 8+ and MariaDB 10.6+.
--
-- Foreign keys and checks are named as the servers would name them (`<table>_ibfk_1`, `<table>_chk_1`): such names follow
-- their table when it is renamed, so that tables swapped in by a rebuild are the same to the last name.

-- One row a task: its state now.
CREATE TABLE analysis_tasks (
    id BIGINT UNSIGNED NOT NULL,                 -- position of its `submitted` event
    task_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    tenant VARCHAR(64) NOT NULL,
    user_id BIGINT UNSIGNED NULL,
    task_type VARCHAR(64) NOT NULL,
    data_payload JSON NOT NULL,                  -- the caller's document
    model_version VARCHAR(64) NOT NULL,          -- as asked for; once completed, the version that answered
    status VARCHAR(16) NOT NULL,                 -- the state machine of schema/src/task.rs
    attempt SMALLINT UNSIGNED NOT NULL,          -- running or last attempt, 0 before the first
    worker VARCHAR(255) NULL,                    -- who holds or held the attempt
    error_code VARCHAR(64) NULL,
    error_message TEXT NULL,
    batch_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NULL,
    batch_line INT UNSIGNED NULL,                -- from 1
    retry_of CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NULL,     -- the ended task this one repeats
    redriven_as CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NULL,  -- the task that repeats this one
    dead_lettered BOOLEAN NOT NULL,              -- on the dead-letter list now
    webhook_url VARCHAR(2048) NULL,              -- the task's own webhook
    webhook_secret VARBINARY(1024) NULL,         -- sealed
    last_n BIGINT UNSIGNED NOT NULL,             -- number of the last event folded into this row
    started_at DATETIME(6) NULL,                 -- first attempt
    completed_at DATETIME(6) NULL,               -- terminal event, whatever the outcome
    created_at DATETIME(6) NOT NULL,             -- `submitted`
    updated_at DATETIME(6) NOT NULL,
    PRIMARY KEY (id),
    UNIQUE KEY analysis_tasks_task_id (task_id),
    KEY analysis_tasks_created (created_at, id),
    KEY analysis_tasks_status (status, created_at, id),
    KEY analysis_tasks_type (task_type, model_version, created_at, id),
    KEY analysis_tasks_error (error_code, created_at, id),
    KEY analysis_tasks_batch (batch_id, batch_line),
    CONSTRAINT analysis_tasks_chk_1
        CHECK (status IN ('pending', 'processing', 'completed', 'failed', 'cancelled'))
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row a completed task.
CREATE TABLE analysis_results (
    id BIGINT UNSIGNED NOT NULL,                 -- position of the `completed` event
    analysis_task_id BIGINT UNSIGNED NOT NULL,
    result_data JSON NOT NULL,
    inference_us BIGINT UNSIGNED NOT NULL,       -- time in the model, shared by its micro-batch
    model_version VARCHAR(64) NULL,              -- that answered
    model_digest VARCHAR(64) NULL,               -- SHA-256 of its package's manifest
    backend VARCHAR(64) NULL,                    -- the engine that ran it
    route_reason VARCHAR(16) NULL,               -- why that version: exact, stable, canary, candidate, latest
    created_at DATETIME(6) NOT NULL,
    updated_at DATETIME(6) NOT NULL,
    PRIMARY KEY (id),
    UNIQUE KEY analysis_results_task (analysis_task_id),
    CONSTRAINT analysis_results_ibfk_1 FOREIGN KEY (analysis_task_id) REFERENCES analysis_tasks (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What shadow versions made of completed tasks: one row a `shadowed` event. Never an answer; for comparison.
CREATE TABLE analysis_shadow_results (
    id BIGINT UNSIGNED NOT NULL,                 -- position of the `shadowed` event
    analysis_task_id BIGINT UNSIGNED NOT NULL,
    task_type VARCHAR(64) NOT NULL,
    model_version VARCHAR(64) NOT NULL,          -- the shadow
    model_digest VARCHAR(64) NOT NULL,
    backend VARCHAR(64) NOT NULL,
    result_data JSON NULL,                       -- NULL when it gave none
    error_code VARCHAR(64) NULL,
    error_message TEXT NULL,
    agrees BOOLEAN NOT NULL,                     -- the same top label or entities as the answer
    took_us BIGINT UNSIGNED NOT NULL,
    created_at DATETIME(6) NOT NULL,
    PRIMARY KEY (id),
    KEY analysis_shadow_results_task (analysis_task_id),
    KEY analysis_shadow_results_model (task_type, model_version, created_at),
    CONSTRAINT analysis_shadow_results_ibfk_1 FOREIGN KEY (analysis_task_id) REFERENCES analysis_tasks (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The history of a task: one row an event.
CREATE TABLE task_logs (
    id BIGINT UNSIGNED NOT NULL,                 -- position of the event
    analysis_task_id BIGINT UNSIGNED NOT NULL,
    event_type VARCHAR(32) NOT NULL,
    description VARCHAR(255) NOT NULL,           -- for people
    details JSON NOT NULL,                       -- attempt, actor and what the event says beside its documents
    created_at DATETIME(6) NOT NULL,
    PRIMARY KEY (id),
    KEY task_logs_task (analysis_task_id),
    CONSTRAINT task_logs_ibfk_1 FOREIGN KEY (analysis_task_id) REFERENCES analysis_tasks (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row a batch upload that ended.
CREATE TABLE analysis_batches (
    id BIGINT UNSIGNED NOT NULL,                 -- position of the `batch_received` event
    batch_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    tenant VARCHAR(64) NOT NULL,
    accepted INT UNSIGNED NOT NULL,
    rejected INT UNSIGNED NOT NULL,
    created_at DATETIME(6) NOT NULL,
    PRIMARY KEY (id),
    UNIQUE KEY analysis_batches_batch (batch_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- How far each projection has read. Moved by compare-and-set as the first statement of the transaction that writes the
-- rows: that fences a second projector.
CREATE TABLE projection_checkpoint (
    projection VARCHAR(32) NOT NULL,
    part SMALLINT UNSIGNED NOT NULL,
    last_n BIGINT UNSIGNED NOT NULL,             -- last event folded
    owner VARCHAR(255) NOT NULL,                 -- who moved it last, for people
    event_at DATETIME(6) NULL,                   -- when that event happened
    updated_at DATETIME(6) NOT NULL,
    PRIMARY KEY (projection, part)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Events that could not be folded: kept, counted, alarmed; never skipped silently.
CREATE TABLE projection_faults (
    id BIGINT UNSIGNED NOT NULL,                 -- position of the event
    task_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    event_type VARCHAR(64) NOT NULL,
    reason TEXT NOT NULL,
    created_at DATETIME(6) NOT NULL,
    PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Announcements to send: written in the fold's transaction, never by a rebuild.
CREATE TABLE webhook_outbox (
    id BIGINT UNSIGNED NOT NULL,                 -- position of the terminal event
    endpoint VARCHAR(64) NOT NULL,               -- `task` for the task's own, else the configured endpoint's name
    analysis_task_id BIGINT UNSIGNED NOT NULL,
    url VARCHAR(2048) NULL,                      -- the task's own; configured endpoints keep theirs in the configuration
    secret VARBINARY(1024) NULL,                 -- sealed, of the task's own
    body MEDIUMBLOB NOT NULL,                    -- the bytes that are signed and sent
    state TINYINT UNSIGNED NOT NULL,             -- 0 due, 1 leased, 2 delivered, 3 given up
    due_at DATETIME(6) NOT NULL,                 -- next attempt; while leased, the end of the lease
    lease_token BIGINT UNSIGNED NULL,
    attempts SMALLINT UNSIGNED NOT NULL,
    created_at DATETIME(6) NOT NULL,
    finished_at DATETIME(6) NULL,
    PRIMARY KEY (id, endpoint),
    KEY webhook_outbox_due (state, due_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row a delivery attempt.
CREATE TABLE webhook_attempts (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    outbox_id BIGINT UNSIGNED NOT NULL,
    endpoint VARCHAR(64) NOT NULL,
    attempt SMALLINT UNSIGNED NOT NULL,          -- from 1
    outcome VARCHAR(16) NOT NULL,                -- delivered, retry, gave_up, blocked
    status_code SMALLINT UNSIGNED NULL,
    error VARCHAR(255) NULL,
    duration_us BIGINT UNSIGNED NOT NULL,
    created_at DATETIME(6) NOT NULL,
    PRIMARY KEY (id),
    KEY webhook_attempts_outbox (outbox_id, endpoint)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
