-- What was taken out of the tables on purpose, so that a comparison with the journal can tell it from a loss: tasks that
-- ended before the horizon may be absent. Moves forward only, and before the first row goes.
CREATE TABLE rows_horizon (
    part SMALLINT UNSIGNED NOT NULL,             -- always 0: there is one
    ended_before DATETIME(6) NOT NULL,
    updated_at DATETIME(6) NOT NULL,
    PRIMARY KEY (part)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What the continuous check found: the last look, and the last that found a difference.
CREATE TABLE projection_checks (
    part SMALLINT UNSIGNED NOT NULL,             -- always 0: there is one
    checked_at DATETIME(6) NOT NULL,
    owner VARCHAR(255) NOT NULL,                 -- who looked, for people
    tasks BIGINT UNSIGNED NOT NULL,
    events BIGINT UNSIGNED NOT NULL,
    differences BIGINT UNSIGNED NOT NULL,
    differed_at DATETIME(6) NULL,                -- NULL: no look has found any
    difference TEXT NULL,                        -- one of those found then
    PRIMARY KEY (part)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
