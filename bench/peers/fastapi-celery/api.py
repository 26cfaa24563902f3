"""Accepts uploads: the row and its first log entry in one transaction, then a Celery message; answers queries from the row."""

import json
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import asyncmy
import asyncio
from asyncmy.constants.CLIENT import MULTI_STATEMENTS
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from servers import database_settings
from worker import analyse_task

MODELS = {"sentiment_analysis": ["v1.0"], "named_entity_recognition": ["v1.0"]}

# One round trip instead of four.
INSERT = """BEGIN;
INSERT INTO analysis_tasks (task_id, task_type, data_payload, model_version, status, created_at, updated_at)
  VALUES (%s, %s, %s, %s, 'pending', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6));
SET @task = LAST_INSERT_ID();
INSERT INTO task_logs (analysis_task_id, event_type, description, details, created_at)
  VALUES (@task, 'submitted', 'Task submitted', '{}', UTC_TIMESTAMP(6));
COMMIT;
SELECT @task"""

SELECT = """SELECT t.status, t.task_type, t.model_version, t.data_payload, t.error_message, r.result_data
  FROM analysis_tasks t LEFT JOIN analysis_results r ON r.analysis_task_id = t.id WHERE t.task_id = %s"""

# Celery publishes with a blocking call: threads let publications share Redis's fsync.
publishers = ThreadPoolExecutor(int(os.environ.get("PUBLISHERS", "2")))


class Upload(BaseModel):
    data: str
    task_type: str
    model_version: str


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.pool = await asyncmy.create_pool(
        minsize=1,
        maxsize=int(os.environ.get("API_POOL", "16")),
        autocommit=True,
        client_flag=MULTI_STATEMENTS,
        **database_settings(),
    )
    yield
    app.state.pool.close()
    await app.state.pool.wait_closed()


app = FastAPI(lifespan=lifespan)


def wrong(upload: Upload) -> dict[str, list[str]]:
    errors = {}
    try:
        text = json.loads(upload.data)["text"]
        if not isinstance(text, str) or not text:
            errors["data"] = ["must hold a text"]
    except (ValueError, KeyError, TypeError):
        errors["data"] = ["must be a JSON document with a text"]
    if upload.task_type not in MODELS:
        errors["task_type"] = ["unknown"]
    elif upload.model_version not in MODELS[upload.task_type]:
        errors["model_version"] = ["unknown"]
    return errors


async def insert(values: tuple) -> int:
    async with app.state.pool.acquire() as connection, connection.cursor() as cursor:
        try:
            await cursor.execute(INSERT, values)
            while await cursor.nextset():
                pass
            return (await cursor.fetchone())[0]
        except Exception:
            await connection.rollback()
            raise


@app.post("/api/data/upload")
async def upload(body: Upload) -> Response:
    if errors := wrong(body):
        return JSONResponse({"message": "The given data was invalid.", "errors": errors}, 422)
    task_id = str(uuid.uuid4())
    row = await insert((task_id, body.task_type, body.data, body.model_version))
    arguments = (row, task_id, body.task_type, body.model_version, body.data)
    await asyncio.get_running_loop().run_in_executor(publishers, analyse_task.apply_async, arguments)
    answer = {"message": "任務已接收", "task_id": task_id}
    return JSONResponse(answer, 202, {"Location": f"/api/result/{task_id}"})


@app.get("/api/result/{task_id}")
async def result(task_id: str) -> Response:
    async with app.state.pool.acquire() as connection, connection.cursor() as cursor:
        await cursor.execute(SELECT, (task_id,))
        row = await cursor.fetchone()
    if row is None:
        return JSONResponse({"detail": "任務不存在或已過期"}, 404)
    names = ("status", "task_type", "model_version", "data_payload", "error", "result")
    answer = dict(zip(names, row))
    answer["result"] = answer["result"] and json.loads(answer["result"])
    return JSONResponse(answer)


@app.get("/api/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}
