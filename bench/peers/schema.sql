-- The contract's tables, as both peers keep them.

CREATE TABLE analysis_tasks (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    task_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL UNIQUE,
    user_id BIGINT UNSIGNED NULL,
    task_type VARCHAR(64) NOT NULL,
    data_payload JSON NOT NULL,
    model_version VARCHAR(64) NOT NULL,
    status VARCHAR(16) NOT NULL,
    error_message TEXT NULL,
    started_at DATETIME(6) NULL,
    completed_at DATETIME(6) NULL,
    created_at DATETIME(6) NOT NULL,
    updated_at DATETIME(6) NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE analysis_results (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    analysis_task_id BIGINT UNSIGNED NOT NULL UNIQUE,
    result_data JSON NOT NULL,
    created_at DATETIME(6) NOT NULL,
    updated_at DATETIME(6) NOT NULL,
    FOREIGN KEY (analysis_task_id) REFERENCES analysis_tasks (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE task_logs (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    analysis_task_id BIGINT UNSIGNED NOT NULL,
    event_type VARCHAR(32) NOT NULL,
    description VARCHAR(255) NOT NULL,
    details JSON NOT NULL,
    created_at DATETIME(6) NOT NULL,
    KEY task_logs_task (analysis_task_id),
    FOREIGN KEY (analysis_task_id) REFERENCES analysis_tasks (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
