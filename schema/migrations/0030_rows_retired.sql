-- Tasks whose rows were deleted because they ended long ago, for as long as an event of them may still come: it changes
-- nothing then, while an event of a task that never was is a fault.
CREATE TABLE rows_retired (
    id BIGINT UNSIGNED NOT NULL,                 -- position of the task's `submitted` event, the id its row had
    retired_at DATETIME(6) NOT NULL,
    PRIMARY KEY (id),
    KEY rows_retired_at (retired_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
