-- What people ordered of the sender, and what became of it: one row an order that was taken up. The key is the order's number,
-- so that of two projectors one does it. Not derived from the journal of tasks, and not rebuilt.
CREATE TABLE webhook_orders (
    n BIGINT UNSIGNED NOT NULL,                  -- number of the order
    kind VARCHAR(16) NOT NULL,                   -- resend, ping
    actor VARCHAR(255) NOT NULL,                 -- who gave it
    reason TEXT NULL,                            -- why
    ordered_at DATETIME(6) NOT NULL,
    done_at DATETIME(6) NULL,                    -- NULL: a ping that is on its way, or whose sender died
    resent BIGINT UNSIGNED NULL,                 -- deliveries that are made again
    status_code SMALLINT UNSIGNED NULL,          -- what a ping was answered with
    error VARCHAR(255) NULL,
    duration_us BIGINT UNSIGNED NULL,
    PRIMARY KEY (n)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The endpoints that projectors are configured with, for those who ask; secrets stay in the configuration.
CREATE TABLE webhook_endpoints (
    name VARCHAR(64) NOT NULL,
    url VARCHAR(2048) NOT NULL,                  -- without credentials and query
    seen_at DATETIME(6) NOT NULL,                -- when a projector last started with it
    PRIMARY KEY (name)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Deliveries are listed newest first.
ALTER TABLE webhook_outbox ADD KEY webhook_outbox_created (created_at);
