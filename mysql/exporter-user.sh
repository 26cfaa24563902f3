# Run once by the image's entry point, after it has created the database: gives the metrics exporter a user of its own
# that can read figures and no rows.
# shellcheck shell=bash
MYSQL_PWD=$MYSQL_ROOT_PASSWORD mysql --protocol=socket --user=root --database=mysql <<SQL
CREATE USER IF NOT EXISTS 'exporter'@'%' IDENTIFIED BY '${MYSQL_EXPORTER_PASSWORD}' WITH MAX_USER_CONNECTIONS 3;
GRANT PROCESS, REPLICATION CLIENT ON *.* TO 'exporter'@'%';
GRANT SELECT ON performance_schema.* TO 'exporter'@'%';
SQL
