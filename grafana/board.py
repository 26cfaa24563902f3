#!/usr/bin/env python3
"""Writes grafana/dashboards/*.json: the overview, with a row a role in the order of a task's life; models; webhooks; the
servers behind.

usage: grafana/board.py [--check]    --check compares instead of writing

A panel is a title, what it tells, a unit, and its queries with their legends.
"""

import json
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS, HEIGHT, STAT_HEIGHT = 3, 8, 4


def rate(selector, by=""):
    return f"sum{f' by ({by})' if by else ''} (rate({selector}[$__rate_interval]))"


def quantiles(metric, selector, by=""):
    """Median and 99th percentile of a histogram."""
    labels = f"le, {by}" if by else "le"
    legend = "".join(f"{{{{{label}}}}} " for label in by.split(", ") if label)
    buckets = f"sum by ({labels}) (rate({metric}_bucket{selector}[$__rate_interval]))"
    return [(f"histogram_quantile({q}, {buckets})", f"{legend}{name}") for q, name in ((0.5, "p50"), (0.99, "p99"))]


def share(part, whole):
    """0 while nothing of `part` was counted yet, not nothing."""
    return f"(sum(rate({part}[$__rate_interval])) or vector(0)) / sum(rate({whole}[$__rate_interval]))"


TYPE = '{job="analyzer",task_type=~"$task_type"}'
IN_TIME = '{job="analyzer",task_type=~"$task_type",le=~"30|30.0"}'
MODEL = '{job="analyzer",task_type=~"$task_type",model_version=~"$model_version"}'
ASKED = '{job="analyzer",task_type=~"$task_type",version=~"$model_version"}'
AT_A_GLANCE = [
    ("API", "Doors that Prometheus reaches.", "none", [('sum(up{job="api"})', "")]),
    ("Analyzers", "Analyzers that Prometheus reaches.", "none", [('sum(up{job="analyzer"})', "")]),
    ("Projectors", "Projectors that Prometheus reaches. One folds; any other stands by.", "none",
     [('sum(up{job="projector"})', "")]),
    ("Release", "The release that runs; two while one replaces the other.", "none",
     [("count by (version) (if_build_info)", "{{version}}")]),
    ("Tasks ended", "Tasks a second that got their outcome.", "eps",
     [(rate('if_events_appended_total{type=~"completed|failed|cancelled"}'), "")]),
    ("Backlog", "Tasks that wait for an attempt or are in one.", "short", [("max(if_backlog_tasks)", "")]),
    ("Tables behind by", "Age of the oldest event that is not in the tables.", "s",
     [("max(if_projector_lag_seconds)", "")]),
    ("Dead letters in 24 h", "Tasks that failed for good.", "short",
     [('sum(increase(if_events_appended_total{type="dead_lettered"}[24h]))', "")]),
]
ROWS = [
    ("API: submitted", [
        ("Requests", "Requests answered, by status.", "reqps", [(rate("if_http_requests_total", "status"), "{{status}}")]),
        ("Duration by route", "From a request's header to its answer's, 99th percentile. Long polls wait on purpose.", "s",
         quantiles("if_http_request_duration_seconds", "", "route")[1:]),
        ("Upload duration", "The same for single uploads: what a caller waits until its task is safe.", "s",
         quantiles("if_http_request_duration_seconds", '{method="POST",route=~".*/upload"}')),
        ("Server errors", "Share of requests answered 5xx.", "percentunit",
         [(share('if_http_requests_total{status=~"5.."}', "if_http_requests_total"), "5xx")]),
        ("Events appended", "What the doors wrote into the journal, by type.", "eps",
         [(rate('if_events_appended_total{job="api"}', "type"), "{{type}}")]),
        ("Tasks refused", "Tasks that were in order and not taken, by reason.", "eps",
         [(rate("if_uploads_refused_total", "reason"), "{{reason}}")]),
        ("Ids not looked up", "Times the tables did not say at once whether ids that callers bring were used before.", "short",
         [("sum(increase(if_ids_unchecked_total[$__rate_interval]))", "times")]),
        ("Backlog", "Tasks waiting or running. Beyond INSIGHTFORGE_MAX_BACKLOG uploads are answered 429.", "short",
         [("max(if_backlog_tasks)", "tasks")]),
        ("Tasks a script call", "Mean number of tasks that are stored together: what makes the flush to disk cheap.", "short",
         [(f"{rate('if_submit_group_size_sum')} / {rate('if_submit_group_size_count')}", "tasks")]),
        ("Followers", "Connections that follow the journal, by WebSocket or as server-sent events; and those a second that "
         "were cut off because they took less than there was.", "short",
         [("sum(if_live_followers)", "followers"), (rate("if_live_cut_total"), "cut off a second")]),
    ]),
    ("Analyzer: processing, then completed or failed", [
        ("Attempts begun", "By task type and what was asked for: a version or an alias.", "eps",
         [(rate(f"if_tasks_started_total{TYPE}", "task_type, model_version"), "{{task_type}} {{model_version}}")]),
        ("Attempts ended, by model", "By task type and the version that was asked.", "eps",
         [(rate(f"if_tasks_finished_total{TYPE}", "task_type, model_version"), "{{task_type}} {{model_version}}")]),
        ("Attempts ended", "By outcome. `lost`: another process had taken the task over.", "eps",
         [(rate(f"if_tasks_finished_total{TYPE}", "outcome"), "{{outcome}}")]),
        ("Retries and dead letters", "Attempts that will be repeated, and tasks that failed for good.", "eps",
         [(rate('if_events_appended_total{job="analyzer",type=~"retry_scheduled|dead_lettered"}', "type"), "{{type}}")]),
        ("Wait in the queue", "From submission to the first attempt.", "s",
         quantiles("if_queue_wait_seconds", TYPE, "task_type")),
        ("Oldest waiting", "Age of the oldest task on each lane that has no outcome yet.", "s",
         [("max by (lane) (if_lane_oldest_seconds)", "{{lane}}")]),
        ("Begun within 30 s", "Share of tasks that waited no longer for their first attempt; 99 % is the goal.", "percentunit",
         [(f"{rate(f'if_queue_wait_seconds_bucket{IN_TIME}')} / {rate(f'if_queue_wait_seconds_count{TYPE}')}", "in time")]),
        ("Waiting without an analyzer", "Tasks on lanes that no analyzer serves.", "short",
         [("sum by (lane) (max by (lane) (if_lane_unserved_tasks))", "{{lane}}")]),
        ("Waiting by lane", "Tasks on each lane that have no outcome yet.", "short",
         [("sum by (lane) (if_lane_tasks)", "{{lane}}")]),
        ("Duration of a model's batch", "One call of a model.", "s",
         quantiles("if_inference_duration_seconds", TYPE, "task_type")),
        ("Tasks a batch", "Mean size of what a model is asked at once.", "short",
         [(f"{rate(f'if_inference_batch_size_sum{TYPE}', 'task_type')}"
           f" / {rate(f'if_inference_batch_size_count{TYPE}', 'task_type')}", "{{task_type}}")]),
        ("In flight", "Tasks taken and not ended, by process.", "short",
         [("sum by (instance) (if_tasks_in_flight)", "{{instance}}")]),
        ("Taken over from the silent", "Entries of analyzers that fell silent, by what became of them.", "eps",
         [(rate("if_leases_reaped_total", "outcome"), "{{outcome}}")]),
        ("Since the last take", "How long ago each process last took a task. High with a backlog: it is deaf.", "s",
         [('time() - max by (instance) (if_last_read_timestamp_seconds{job="analyzer"})', "{{instance}}")]),
    ]),
    ("Projector: folded", [
        ("Lag in events", "Events of each partition that are not in the tables.", "short",
         [("max by (partition) (if_projector_lag_events)", "{{partition}}")]),
        ("Lag in seconds", "Age of the oldest event of each partition that is not in the tables.", "s",
         [("max by (partition) (if_projector_lag_seconds)", "{{partition}}")]),
        ("Events folded", "By type.", "eps", [(rate("if_projector_events_total", "type"), "{{type}}")]),
        ("From outcome to row", "From the outcome's event to its committed row.", "s", quantiles("if_end_to_end_seconds", "")),
        ("Transactions", "By result. `fenced`: another projector was faster.", "ops",
         [(rate("if_projector_transactions_total", "result"), "{{result}}")]),
        ("Duration of a transaction", "From BEGIN to the answer to COMMIT.", "s",
         quantiles("if_projector_transaction_duration_seconds", "")),
        ("Events that could not be folded", "Since the process started; the table projection_faults lists them.", "short",
         [("sum(if_projector_illegal_events_total)", "faults")]),
        ("Kept in Redis only", "Folded events of each partition that are not archived yet; without an archive, all of them.", "short",
         [("max by (partition) (if_archive_lag_events)", "{{partition}}")]),
        ("Archived and trimmed", "Events written to the archive, and events that left Redis.", "eps",
         [(rate("if_archive_events_total"), "archived"), (rate("if_journal_trimmed_events_total"), "trimmed")]),
        ("Archiving failed", "Steps that failed; what they would have trimmed stays.", "short",
         [("sum(increase(if_archive_failures_total[$__rate_interval]))", "failures")]),
        ("Rows deleted as too old", "Tasks and announcements, by INSIGHTFORGE_ROWS_KEEP_DAYS and …_DELIVERIES_KEEP_DAYS.", "eps",
         [(rate("if_rows_deleted_total", "what"), "{{what}}")]),
        ("Dead letters", "Tasks that failed for good and that nobody has repeated or purged.", "short",
         [("max(if_dead_letters)", "letters")]),
        ("Dead letters expired", "Taken off the list as too old; INSIGHTFORGE_LETTERS_KEEP_DAYS.", "eps",
         [(rate("if_dead_letters_expired_total"), "expired")]),
        ("Put back", "Tasks that are not over and that Redis had lost a part of; the journal gave it back.", "short",
         [("sum(increase(if_tasks_restored_total[$__rate_interval]))", "tasks")]),
        ("Compared with the journal", "Tasks folded again and compared, and differences found.", "short",
         [("sum(increase(if_projection_check_tasks_total[$__rate_interval]))", "tasks"),
          ("sum(increase(if_projection_check_differences_total[$__rate_interval]))", "differences")]),
        ("Since the last comparison", "How long ago a sample was last compared with the journal.", "s",
         [("time() - max(if_projection_check_timestamp_seconds)", "since")]),
        ("Since the last read", "How long ago the journal was last read; about a second when all is well.", "s",
         [('time() - max by (instance) (if_last_read_timestamp_seconds{job="projector"})', "{{instance}}")]),
    ]),
    ("Webhooks: announced", [
        ("Webhook attempts", "By outcome. `blocked`: the address is not allowed.", "eps",
         [(rate("if_webhook_attempts_total", "outcome"), "{{outcome}}")]),
        ("Webhooks overdue", "How long the oldest delivery that is due has been so.", "s",
         [("max(if_webhook_overdue_seconds)", "overdue")]),
        ("Webhooks outstanding", "Deliveries not yet made or given up; counted up to 100,000.", "short",
         [("max(if_webhook_outbox_pending)", "pending")]),
    ]),
]
MODELS = [
    ("Answers by version", [
        ("Attempts ended", "By the version that was asked, completed or not.", "eps",
         [(rate(f"if_tasks_finished_total{MODEL}", "task_type, model_version, outcome"),
           "{{task_type}} {{model_version}} {{outcome}}")]),
        ("Failed", "Share of attempts of each version that did not complete.", "percentunit",
         [("(sum by (task_type, model_version) (rate(if_tasks_finished_total"
           + MODEL.replace("}", ',outcome!="completed"}') + "[$__rate_interval])) or 0 * "
           + f"{rate(f'if_tasks_finished_total{MODEL}', 'task_type, model_version')})"
           + f" / ({rate(f'if_tasks_finished_total{MODEL}', 'task_type, model_version')} > 0)",
           "{{task_type}} {{model_version}}")]),
        ("Duration of a call", "One call of a model, whatever asked it.", "s",
         quantiles("if_model_infer_seconds", MODEL, "task_type, model_version")),
        ("Wait for a thread", "Time an input waited for a thread of its model.", "s",
         quantiles("if_model_queue_seconds", MODEL, "task_type, model_version")),
        ("Inputs a call", "Mean number of inputs that are asked at once.", "short",
         [(f"{rate(f'if_model_batch_size_sum{MODEL}', 'task_type, model_version')}"
           f" / {rate(f'if_model_batch_size_count{MODEL}', 'task_type, model_version')}", "{{task_type}} {{model_version}}")]),
        ("Cost of a call", "Mean cost of a batch in the model's own unit, padding included.", "short",
         [(f"{rate(f'if_model_batch_cost_size_sum{MODEL}', 'task_type, model_version')}"
           f" / {rate(f'if_model_batch_cost_size_count{MODEL}', 'task_type, model_version')}",
           "{{task_type}} {{model_version}}")]),
        ("Padding", "Part of a padded batch that is padding; models that count tokens only.", "percentunit",
         [(f"{rate(f'if_model_padding_ratio_sum{MODEL}', 'task_type, model_version')}"
           f" / {rate(f'if_model_padding_ratio_count{MODEL}', 'task_type, model_version')}",
           "{{task_type}} {{model_version}}")]),
        ("Turned away", "Inputs for which too many waited, and inputs whose deadline passed before a thread was free.", "eps",
         [(rate(f"if_model_rejected_total{MODEL}", "task_type, model_version"), "{{task_type}} {{model_version}} full"),
          (rate(f"if_model_expired_total{MODEL}", "task_type, model_version"), "{{task_type}} {{model_version}} late")]),
    ]),
    ("What is loaded", [
        ("Memory", "What each model keeps, in all processes; 0 while it is unloaded.", "bytes",
         [(f"sum by (task_type, model_version) (if_model_resident_bytes{MODEL})", "{{task_type}} {{model_version}}")]),
        ("Processes that died", "Processes of a model that died or were killed and are started again.", "short",
         [(f"sum(increase(if_model_restarts_total{MODEL}[$__rate_interval])) or vector(0)", "restarts")]),
        ("Packages", "Packages that were loaded, replaced, unloaded or refused.", "short",
         [("sum by (change) (increase(if_model_changes_total[$__rate_interval]))", "{{change}}")]),
        ("Shadows", "What shadow versions said beside the answers: the same, something else, or nothing.", "eps",
         [(rate(f"if_shadow_results_total{TYPE}", "task_type, model_version, outcome"),
           "{{task_type}} {{model_version}} {{outcome}}")]),
        ("Shadows left out", "Answers that no shadow was compared with, by reason.", "eps",
         [(rate("if_shadow_dropped_total", "reason"), "{{reason}}")]),
    ]),
    ("Asked at once, without a task", [
        ("Answers", "Inputs at the synchronous door, by version and outcome.", "eps",
         [(rate(f"if_infer_requests_total{ASKED}", "task_type, version, outcome"), "{{task_type}} {{version}} {{outcome}}")]),
        ("Nobody could answer", "Questions for what there is not, by reason.", "eps",
         [(rate('if_infer_requests_total{job="analyzer",version=""}', "outcome"), "{{outcome}}")]),
        ("Duration of an answer", "From the input read at that door to its answer.", "s",
         quantiles("if_infer_duration_seconds", ASKED, "task_type, version")),
    ]),
]
WEBHOOKS = [
    ("Deliveries", [
        ("Attempts", "By outcome. `blocked`: the address is not allowed.", "eps",
         [(rate("if_webhook_attempts_total", "outcome"), "{{outcome}}")]),
        ("Not delivered", "Share of attempts that delivered nothing.", "percentunit",
         [(share('if_webhook_attempts_total{outcome!="delivered"}', "if_webhook_attempts_total"), "failed")]),
        ("Duration of an attempt", "Until the receiver's answer was read.", "s",
         quantiles("if_webhook_attempt_duration_seconds", "")),
        ("Outbox", "Deliveries not yet made or given up; counted up to 100,000.", "short",
         [("max(if_webhook_outbox_pending)", "pending")]),
        ("Overdue", "How long the oldest delivery that is due has been so.", "s",
         [("max(if_webhook_overdue_seconds)", "overdue")]),
        ("Oldest undelivered", "Age of the oldest delivery not yet made or given up, by who named its receiver.", "s",
         [("max by (receiver) (if_webhook_oldest_seconds)", "{{receiver}}")]),
        ("In flight", "Deliveries being sent.", "short", [("sum(if_webhook_in_flight)", "in flight")]),
        ("Receivers paused", "Receivers that failed again and again and are sent nothing for a while, by who named them.", "short",
         [("sum by (receiver) (if_webhook_endpoints_paused)", "{{receiver}}")]),
        ("Not attempted, or perhaps twice", "Handed back because the receiver was paused or had enough waiting; and taken over"
         " by another process before the outcome was recorded.", "eps",
         [(rate("if_webhook_postponed_total"), "postponed"), (rate("if_webhook_leases_lost_total"), "lease lost")]),
    ]),
]
SERVERS = [
    ("Redis: the journal", [
        ("Redis answers", "1: the exporter reaches it.", "bool_yes_no", [("min(redis_up)", "up")]),
        ("Redis started", "How long ago; a restart loses nothing, and costs a load of the log.", "s",
         [("max(redis_uptime_in_seconds)", "ago")]),
        ("Keys", "Live tasks, lanes and cached outcomes.", "short", [("sum(redis_db_keys)", "keys")]),
        ("Memory", "Used, and the limit beyond which uploads are refused (0: none).", "bytes",
         [("redis_memory_used_bytes", "used"), ("redis_memory_max_bytes", "limit")]),
        ("Commands", "By command, the ten most frequent.", "ops",
         [(f"topk(10, {rate('redis_commands_total', 'cmd')})", "{{cmd}}")]),
        ("Time in commands", "Share of one core, by command, the ten greatest; scripts are fcall and evalsha.", "percentunit",
         [(f"topk(10, {rate('redis_commands_duration_seconds_total', 'cmd')})", "{{cmd}}")]),
        ("Append-only file", "Its size; it shrinks when it is rewritten.", "bytes",
         [("redis_aof_current_size_bytes", "size")]),
        ("Log is kept", "1: the last write of the append-only file worked.", "bool_on_off",
         [("min(redis_aof_last_write_status)", "last write"), ("min(redis_aof_last_bgrewrite_status)", "last rewrite")]),
        ("Clients", "Connections, and those that wait for new entries.", "short",
         [("redis_connected_clients", "connected"), ("redis_blocked_clients", "waiting")]),
    ]),
    ("MySQL: the tables", [
        ("MySQL answers", "1: the exporter reaches it.", "bool_yes_no", [("min(mysql_up)", "up")]),
        ("Statements", "By kind.", "ops",
         [(rate('mysql_global_status_commands_total{command=~"select|insert|update|delete|commit|rollback"}', "command"),
           "{{command}}")]),
        ("Connections", "Open, and the most the server takes.", "short",
         [("mysql_global_status_threads_connected", "open"), ("mysql_global_variables_max_connections", "limit")]),
        ("Waits for row locks", "A second.", "ops", [(rate("mysql_global_status_innodb_row_lock_waits"), "waits")]),
        ("Flushes to disk", "fsync calls a second.", "iops", [(rate("mysql_global_status_innodb_data_fsyncs"), "fsync")]),
        ("Written", "By InnoDB, data and log.", "Bps",
         [(rate("mysql_global_status_innodb_data_written"), "data"),
          (rate("mysql_global_status_innodb_os_log_written"), "log")]),
        ("Pages read from disk", "Share of page reads that the buffer pool could not answer.", "percentunit",
         [(f"{rate('mysql_global_status_innodb_buffer_pool_reads')}"
           f" / {rate('mysql_global_status_innodb_buffer_pool_read_requests')}", "misses")]),
    ]),
]


class Layout:
    """Ids and places on a grid 24 wide."""

    def __init__(self):
        self.panels, self.x, self.y = [], 0, 0

    def line(self, height):
        self.x, self.y = 0, self.y + height

    def add(self, panel, width, height):
        if self.x + width > 24:
            self.line(height)
        place = {"h": height, "w": width, "x": self.x, "y": self.y}
        self.panels.append({"id": len(self.panels) + 1, **panel, "gridPos": place})
        self.x += width


def panel(kind, title, description, unit, queries):
    targets = [
        {"refId": chr(ord("A") + n), "datasource": DATASOURCE, "expr": expr, "legendFormat": legend or "__auto"}
        for n, (expr, legend) in enumerate(queries)
    ]
    made = {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
    }
    if kind == "stat":
        if title == "Release":
            made["options"] = {"textMode": "name", "colorMode": "none", "graphMode": "none"}
        else:
            made["options"] = {"colorMode": "none", "graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"]}}
    else:
        made["fieldConfig"]["defaults"]["custom"] = {"fillOpacity": 10, "lineWidth": 1, "showPoints": "never"}
        made["options"] = {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return made


def variables(chosen):
    """The data source, and a choice for each label that queries filter by."""
    made = [
        {
            "name": "datasource",
            "label": "Prometheus",
            "type": "datasource",
            "query": "prometheus",
            "current": {"text": "Prometheus", "value": "prometheus"},
        },
    ]
    for name, label, query in chosen:
        made.append(
            {
                "name": name,
                "label": label,
                "type": "query",
                "datasource": DATASOURCE,
                "query": {"query": query, "refId": name},
                "refresh": 2,
                "sort": 1,
                "multi": True,
                "includeAll": True,
                "allValue": ".*",
                "current": {"text": ["All"], "value": ["$__all"]},
            }
        )
    return made


TASK_TYPE = ("task_type", "Task type", "label_values(if_model_resident_bytes, task_type)")
MODEL_VERSION = ("model_version", "Version", 'label_values(if_model_resident_bytes{task_type=~"$task_type"}, model_version)')

# File and uid, title, description, stats at the top, rows, variables.
BOARDS = [
    ("insightforge", "InsightForge", "The life of a task, a row a role.", AT_A_GLANCE, ROWS, [TASK_TYPE]),
    ("insightforge-models", "InsightForge models", "Which version answers how often, how fast and how well.", [], MODELS,
     [TASK_TYPE, MODEL_VERSION]),
    ("insightforge-webhooks", "InsightForge webhooks", "What is announced, and what is not.", [], WEBHOOKS, []),
    ("insightforge-servers", "InsightForge servers", "Redis, which holds the journal, and MySQL, which holds the tables.", [],
     SERVERS, []),
]


def board(uid, title, description, stats, rows, chosen):
    layout = Layout()
    for stat in stats:
        layout.add(panel("stat", *stat), 24 // len(stats), STAT_HEIGHT)
    height = STAT_HEIGHT if stats else 0
    for row, panels in rows:
        layout.line(height)
        layout.add({"type": "row", "title": row, "collapsed": False, "panels": []}, 24, 1)
        layout.line(1)
        height = HEIGHT
        for series in panels:
            layout.add(panel("timeseries", *series), 24 // COLUMNS, HEIGHT)
    return {
        "uid": uid,
        "title": title,
        "description": f"{description} Written by grafana/board.py.",
        "tags": ["insightforge"],
        "schemaVersion": 41,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "templating": {"list": variables(chosen)},
        "annotations": {"list": []},
        # The other boards, with the same time.
        "links": [
            {"type": "dashboards", "tags": ["insightforge"], "title": "InsightForge", "asDropdown": True, "keepTime": True,
             "includeVars": False, "targetBlank": False, "icon": "external link", "tooltip": "", "url": ""},
        ],
        "panels": layout.panels,
    }


def main():
    texts = {FOLDER / f"{made[0]}.json": json.dumps(board(*made), indent=2, ensure_ascii=False) + "\n" for made in BOARDS}
    if sys.argv[1:] == ["--check"]:
        wrong = [str(path) for path, text in texts.items() if not path.exists() or path.read_text() != text]
        wrong += [str(path) for path in FOLDER.glob("*.json") if path not in texts]
        if wrong:
            sys.exit(f"not what grafana/board.py writes; run it: {', '.join(wrong)}")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        for path, text in texts.items():
            path.write_text(text)


if __name__ == "__main__":
    main()
