//! Which indexes the servers take for a question, of tables with rows in them. For tests.

use insightforge_schema::tables;
use sqlx::{AssertSqlSafe, Execute, MySql, MySqlPool, QueryBuilder, Row};

const SERVERS: [&str; 2] = ["INSIGHTFORGE_TEST_MARIADB_URL", "INSIGHTFORGE_TEST_MYSQL_URL"];
/// Of 20,000 tasks, one a second, a fifth each stands in each status, and every thousandth is of the version `rare`.
const FILL: &str = "\
INSERT INTO analysis_tasks (id, task_id, tenant, task_type, data_payload, model_version, status, attempt, dead_lettered, last_n,
    created_at, updated_at)
SELECT n * 1024, UUID(), 'default', 'acting', '{}', IF(n % 1000 = 0, 'rare', 'v1'),
    ELT(1 + n % 5, 'pending', 'processing', 'completed', 'failed', 'cancelled'), 1, 0, 1,
    '2026-02-01' + INTERVAL n SECOND, '2026-02-01'
FROM (SELECT 1 + a.d + 20 * b.d + 400 * c.d + 8000 * e.d n FROM digits a, digits b, digits c, digits e WHERE e.d < 3) numbers
WHERE n <= 20000";

/// The indexes by which a question's rows of `analysis_tasks` are found, each with what else the server does to them.
pub(crate) struct Plan(pub(crate) Vec<(String, String)>);

/// How each server would answer each question.
pub(crate) async fn of(questions: impl Fn() -> Vec<QueryBuilder<MySql>>) -> Vec<Vec<Plan>> {
    let mut plans = Vec::new();
    for variable in SERVERS {
        let url = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} must name a server for the tests"));
        let server = tables::pool(&url, 1).unwrap();
        let database = format!("t_{}", uuid::Uuid::new_v4().simple());
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {database}"))).execute(&server).await.unwrap();
        let pool = tables::pool(&format!("{}/{database}", url.trim_end_matches('/')), 2).unwrap();
        fill(&pool).await;
        let mut of_this = Vec::new();
        for question in questions() {
            of_this.push(explain(&pool, question).await);
        }
        plans.push(of_this);
        pool.close().await;
        sqlx::query(AssertSqlSafe(format!("DROP DATABASE {database}"))).execute(&server).await.unwrap();
    }
    plans
}

async fn fill(pool: &MySqlPool) {
    tables::migrate(pool).await.unwrap();
    sqlx::query("CREATE TABLE digits (d BIGINT PRIMARY KEY)").execute(pool).await.unwrap();
    let digits = "INSERT INTO digits VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9), (10), (11), (12), (13), (14), (15),
        (16), (17), (18), (19)";
    sqlx::query(digits).execute(pool).await.unwrap();
    sqlx::query(FILL).execute(pool).await.unwrap();
    sqlx::query("ANALYZE TABLE analysis_tasks").execute(pool).await.unwrap();
}

async fn explain(pool: &MySqlPool, mut question: QueryBuilder<MySql>) -> Plan {
    let mut question = question.build();
    let arguments = question.take_arguments().unwrap().unwrap();
    let explain = format!("EXPLAIN FORMAT=TRADITIONAL {}", question.sql().as_str());
    let rows = sqlx::query_with(AssertSqlSafe(explain), arguments).fetch_all(pool).await.unwrap();
    let text = |row: &sqlx::mysql::MySqlRow, column: &str| {
        row.try_get::<Option<String>, _>(column).unwrap().unwrap_or_default()
    };
    let of_tasks = rows.iter().filter(|row| text(row, "table") == "analysis_tasks");
    Plan(of_tasks.map(|row| (text(row, "key"), text(row, "Extra"))).collect())
}
