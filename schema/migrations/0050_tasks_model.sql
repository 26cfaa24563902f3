-- A search by version alone (`model:v9`) finds its tasks among millions, or that there are none, without reading all rows.
CREATE INDEX analysis_tasks_model ON analysis_tasks (model_version, created_at, id);
