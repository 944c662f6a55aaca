-- One row per run; header is the run's journal header as JSON.
CREATE TABLE run (
    run_id        VARCHAR PRIMARY KEY,
    created_at    VARCHAR NOT NULL,
    rubric        VARCHAR NOT NULL,
    rubric_digest VARCHAR NOT NULL,
    judge         VARCHAR NOT NULL,
    evalset       VARCHAR NOT NULL,
    sealed        BOOLEAN NOT NULL,
    header        VARCHAR NOT NULL
);

-- The texts of a pair, apart from the numbers, so that scanning a run never reads them.
CREATE TABLE pair (
    run_id  VARCHAR NOT NULL,
    pair_id VARCHAR NOT NULL,
    body    VARCHAR NOT NULL
);

-- One row per comparison, both orders in columns: cf_ = candidate first, bf_ = baseline first. All from the candidate's side.
CREATE TABLE comparison (
    run_id          VARCHAR NOT NULL,
    pair_id         VARCHAR NOT NULL,
    repeat          INTEGER NOT NULL,
    category        VARCHAR NOT NULL,
    metadata        VARCHAR NOT NULL,  -- the item's scalar metadata as a JSON object, to segment by
    prompt_digest   VARCHAR NOT NULL,
    label           VARCHAR,
    outcome         VARCHAR,
    preference      DOUBLE,
    p_win           DOUBLE,
    p_tie           DOUBLE,
    p_loss          DOUBLE,
    consistent      BOOLEAN,
    confidence      DOUBLE,
    invalid         VARCHAR,
    cf_outcome      VARCHAR,
    cf_win          DOUBLE,
    cf_tie          DOUBLE,
    cf_loss         DOUBLE,
    cf_invalid      VARCHAR,
    bf_outcome      VARCHAR,
    bf_win          DOUBLE,
    bf_tie          DOUBLE,
    bf_loss         DOUBLE,
    bf_invalid      VARCHAR,
    candidate_chars INTEGER NOT NULL,
    baseline_chars  INTEGER NOT NULL,
    flags           VARCHAR NOT NULL,
    rationale       VARCHAR NOT NULL,
    cost            DOUBLE,
    tokens          BIGINT NOT NULL,
    cached          INTEGER NOT NULL
);

-- Every raw reply by the identity of its judgement: the evidence behind a verdict, and the cache.
CREATE TABLE reply (
    key           VARCHAR NOT NULL,
    rubric_digest VARCHAR NOT NULL,
    judge         VARCHAR NOT NULL,
    run_id        VARCHAR NOT NULL,
    pair_id       VARCHAR NOT NULL,
    placement     VARCHAR NOT NULL,
    repeat        INTEGER NOT NULL,
    body          VARCHAR NOT NULL
);
