//! Links that are looked at and kept: an axum server on quoit, with reqwest and sqlx, both of which
//! need tokio, in a sidecar.
//!
//! ```text
//!   POST /links ──► handler on its core ──► sidecar: reqwest ──► the page
//!                        │                  sidecar: sqlx    ──► SQLite
//!   GET /links  ──► handler on its core ──► sidecar: sqlx
//! ```
//!
//! A client that goes away drops its handler's future, and with it the request or the query.

use std::path::Path;

use axum::extract::{Json, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{BoxError, Router};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};

use crate::sidecar::Sidecar;

/// What there is to tell about a link.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Link {
    pub url: String,
    pub status: u16,
    pub length: i64,
}

#[derive(Debug, Deserialize)]
struct New {
    url: String,
}

/// The state that all handlers share.
#[derive(Clone, Debug)]
pub struct Links {
    sidecar: Sidecar,
    client: reqwest::Client,
    pool: SqlitePool,
}

type Failure = (StatusCode, String);

impl Links {
    /// Opens the database, or creates it.
    ///
    /// # Errors
    ///
    /// Those of SQLite.
    pub async fn open(
        sidecar: Sidecar,
        client: reqwest::Client,
        file: &Path,
    ) -> Result<Self, BoxError> {
        let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
        let opening = async {
            let pool = SqlitePoolOptions::new().max_connections(2).connect_with(options).await?;
            let table = "CREATE TABLE IF NOT EXISTS links \
                         (url TEXT PRIMARY KEY, status INTEGER NOT NULL, length INTEGER NOT NULL)";
            sqlx::query(table).execute(&pool).await?;
            Ok::<_, sqlx::Error>(pool)
        };
        let pool = sidecar.run(opening).await??;
        Ok(Self { sidecar, client, pool })
    }

    /// What is answered.
    pub fn router(&self) -> Router {
        Router::new().route("/links", get(list).post(add)).with_state(self.clone())
    }

    /// Closes the database. The sidecar has to be there for that.
    pub async fn close(self) {
        let Self { sidecar, pool, .. } = self;
        // Gone, nothing is left to close.
        let _ = sidecar.run(async move { pool.close().await }).await;
    }

    async fn look(&self, url: String) -> Result<Link, Failure> {
        let request = self.client.get(&url);
        let looked = self.sidecar.run(async {
            let response = request.send().await?;
            let status = response.status().as_u16();
            Ok::<_, reqwest::Error>((status, response.bytes().await?.len()))
        });
        let (status, length) = looked.await.map_err(unavailable)?.map_err(bad_gateway)?;
        let length = i64::try_from(length).map_err(bad_gateway)?;
        Ok(Link { url, status, length })
    }

    async fn keep(&self, link: Link) -> Result<(), Failure> {
        let pool = self.pool.clone();
        let kept = self.sidecar.run(async move {
            sqlx::query("INSERT OR REPLACE INTO links VALUES (?, ?, ?)")
                .bind(link.url)
                .bind(link.status)
                .bind(link.length)
                .execute(&pool)
                .await
        });
        kept.await.map_err(unavailable)?.map_err(internal)?;
        Ok(())
    }

    async fn all(&self) -> Result<Vec<Link>, Failure> {
        let pool = self.pool.clone();
        let rows = self.sidecar.run(async move {
            let query = "SELECT url, status, length FROM links ORDER BY url";
            sqlx::query_as::<_, (String, u16, i64)>(query).fetch_all(&pool).await
        });
        let rows = rows.await.map_err(unavailable)?.map_err(internal)?;
        let link = |(url, status, length)| Link { url, status, length };
        Ok(rows.into_iter().map(link).collect())
    }
}

async fn add(
    State(links): State<Links>,
    Json(New { url }): Json<New>,
) -> Result<(StatusCode, Json<Link>), Failure> {
    let link = links.look(url).await?;
    links.keep(link.clone()).await?;
    Ok((StatusCode::CREATED, Json(link)))
}

async fn list(State(links): State<Links>) -> Result<Json<Vec<Link>>, Failure> {
    links.all().await.map(Json)
}

fn unavailable(error: impl ToString) -> Failure {
    (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

fn bad_gateway(error: impl ToString) -> Failure {
    (StatusCode::BAD_GATEWAY, error.to_string())
}

fn internal(error: impl ToString) -> Failure {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}
