BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0004');
CREATE TABLE batches (
	seq INTEGER NOT NULL, 
	id VARCHAR(40) NOT NULL, 
	created_at INTEGER NOT NULL, 
	status VARCHAR(24) NOT NULL, 
	request JSON NOT NULL, 
	counts JSON NOT NULL, 
	times JSON NOT NULL, 
	output_file VARCHAR(40), 
	error_file VARCHAR(40), 
	errors JSON, 
	announced BOOLEAN NOT NULL, 
	PRIMARY KEY (seq), 
	UNIQUE (id)
);
CREATE TABLE calls (
	id INTEGER NOT NULL, 
	step VARCHAR(32) NOT NULL, 
	model VARCHAR(200) NOT NULL, 
	reserved_usd FLOAT NOT NULL, 
	cost_usd FLOAT, 
	outcome VARCHAR(8) NOT NULL, 
	prompt_tokens INTEGER, 
	cached_tokens INTEGER, 
	completion_tokens INTEGER, 
	at DATETIME NOT NULL, latency_s FLOAT, posted INTEGER, 
	PRIMARY KEY (id)
);
INSERT INTO "calls" VALUES(1,'generate','test-model',0.01,0.001,'paid',10,0,5,'2026-11-23 21:35:28.647133',0.2,NULL);
INSERT INTO "calls" VALUES(2,'label','test-model',0.02,0.002,'paid',10,0,5,'2026-11-23 21:35:28.648285',0.2,NULL);
CREATE TABLE drafts (
	id INTEGER NOT NULL, 
	round INTEGER NOT NULL, 
	brief JSON NOT NULL, 
	task VARCHAR(16) NOT NULL, 
	model VARCHAR(200) NOT NULL, 
	answered BOOLEAN NOT NULL, 
	raw TEXT, 
	fates JSON, 
	PRIMARY KEY (id)
);
INSERT INTO "drafts" VALUES(1,1,'{"form": "messages", "items": [{"kind": "plain", "label": "billing", "opening": "", "about": ""}], "style": "", "persona": "", "language": "", "samples": []}','tttttttttttttttt','test-model',1,'{"1": "a written one"}','{"kept": 1}');
CREATE TABLE files (
	seq INTEGER NOT NULL, 
	id VARCHAR(40) NOT NULL, 
	created_at INTEGER NOT NULL, 
	filename TEXT NOT NULL, 
	purpose VARCHAR(40) NOT NULL, 
	bytes INTEGER NOT NULL, 
	expires_at INTEGER, 
	PRIMARY KEY (seq), 
	UNIQUE (id)
);
INSERT INTO "files" VALUES(1,'file-1',1,'x.jsonl','fine-tune',3,NULL);
CREATE TABLE job_events (
	seq INTEGER NOT NULL, 
	job_id VARCHAR(40) NOT NULL, 
	created_at INTEGER NOT NULL, 
	level VARCHAR(8) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	message TEXT NOT NULL, 
	data JSON, 
	PRIMARY KEY (seq)
);
INSERT INTO "job_events" VALUES(1,'ftjob-1',1795469728,'info','message','Created','null');
CREATE TABLE jobs (
	seq INTEGER NOT NULL, 
	id VARCHAR(40) NOT NULL, 
	created_at INTEGER NOT NULL, 
	status VARCHAR(24) NOT NULL, 
	paused BOOLEAN NOT NULL, 
	attempts INTEGER NOT NULL, 
	request JSON NOT NULL, 
	estimated_finish INTEGER, 
	finished_at INTEGER, 
	error JSON, 
	model VARCHAR(300), 
	result_file VARCHAR(40), 
	trained_tokens INTEGER, 
	announced BOOLEAN NOT NULL, 
	PRIMARY KEY (seq), 
	UNIQUE (id)
);
INSERT INTO "jobs" VALUES(1,'ftjob-1',1,'succeeded',0,1,'{"model": "m", "training_file": "file-1"}',NULL,NULL,NULL,'ft:m:local::1',NULL,NULL,1);
CREATE TABLE keys (
	id INTEGER NOT NULL, 
	name VARCHAR(100) NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	hint VARCHAR(16) NOT NULL, 
	created_at INTEGER NOT NULL, 
	revoked_at INTEGER, 
	PRIMARY KEY (id), 
	UNIQUE (name), 
	UNIQUE (sha256)
);
CREATE TABLE ledger (
	id INTEGER NOT NULL, 
	committed_usd FLOAT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "ledger" VALUES(1,2.99999999999999572564e-03);
CREATE TABLE posted (
	id INTEGER NOT NULL, 
	step VARCHAR(32) NOT NULL, 
	model VARCHAR(200) NOT NULL, 
	base_url TEXT, 
	jobs JSON NOT NULL, 
	file VARCHAR(100), 
	batch VARCHAR(100), 
	state VARCHAR(16) NOT NULL, 
	at DATETIME NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "posted" VALUES(1,'label','test-model',NULL,'{}',NULL,NULL,'new','2026-11-23 21:35:28.654621');
CREATE TABLE questions (
	id VARCHAR(16) NOT NULL, 
	messages JSON NOT NULL, 
	source VARCHAR(64) NOT NULL, 
	group_id VARCHAR(16) NOT NULL, 
	split VARCHAR(8) NOT NULL, 
	at DATETIME NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "questions" VALUES('aaaaaaaaaaaaaaaa','[["user", "where is my parcel"]]','user','aaaaaaaaaaaaaaaa','train','2026-11-23 21:35:28.641803');
INSERT INTO "questions" VALUES('bbbbbbbbbbbbbbbb','[["user", "my invoice is wrong"]]','user','bbbbbbbbbbbbbbbb','train','2026-11-23 21:35:28.641813');
INSERT INTO "questions" VALUES('cccccccccccccccc','[["user", "where is my parcel now"]]','user','cccccccccccccccc','aside','2026-11-23 21:35:28.641815');
INSERT INTO "questions" VALUES('dddddddddddddddd','[["user", "track my shipment"]]','user','dddddddddddddddd','test','2026-11-23 21:35:28.641816');
INSERT INTO "questions" VALUES('eeeeeeeeeeeeeeee','[["user", "a written one"]]','synthetic','eeeeeeeeeeeeeeee','train','2026-11-23 21:35:28.641819');
CREATE TABLE requests (
	id INTEGER NOT NULL, 
	request_id VARCHAR(40) NOT NULL, 
	at INTEGER NOT NULL, 
	"key" VARCHAR(100), 
	model VARCHAR(300) NOT NULL, 
	messages JSON NOT NULL, 
	label TEXT, 
	confidence FLOAT NOT NULL, 
	"by" VARCHAR(200) NOT NULL, 
	latency_s FLOAT NOT NULL, 
	teacher JSON, 
	PRIMARY KEY (id)
);
INSERT INTO "requests" VALUES(1,'r1',1,NULL,'student','[["user", "where is it"]]','delivery',0.9,'student',0.01,'{"model": "test-model", "label": "delivery", "raw": "x", "logprob": null, "usage": [1, 0, 1, 0.1, 0.5]}');
CREATE TABLE verdicts (
	id INTEGER NOT NULL, 
	"key" VARCHAR(80) NOT NULL, 
	question_id VARCHAR(16) NOT NULL, 
	kind VARCHAR(8) NOT NULL, 
	"by" VARCHAR(200) NOT NULL, 
	label TEXT, 
	origin VARCHAR(32) NOT NULL, 
	prompt VARCHAR(16), 
	order_no INTEGER, 
	raw TEXT, 
	logprob FLOAT, 
	prompt_tokens INTEGER, 
	cached_tokens INTEGER, 
	completion_tokens INTEGER, 
	cost_usd FLOAT, 
	latency_s FLOAT, 
	at DATETIME NOT NULL, mark VARCHAR(16), note TEXT, 
	PRIMARY KEY (id), 
	UNIQUE ("key"), 
	FOREIGN KEY(question_id) REFERENCES questions (id)
);
INSERT INTO "verdicts" VALUES(1,'review:m1:aaaaaaaaaaaaaaaa','aaaaaaaaaaaaaaaa','person','ann','delivery','review',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'2026-11-20 12:00:00.000000','m1','sure');
INSERT INTO "verdicts" VALUES(2,'bulk:m2:bbbbbbbbbbbbbbbb','bbbbbbbbbbbbbbbb','person','ann','other','bulk',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'2026-11-20 12:00:00.000000','m2',NULL);
INSERT INTO "verdicts" VALUES(3,'withdrawn:m2:bbbbbbbbbbbbbbbb','bbbbbbbbbbbbbbbb','person','ann',NULL,'withdrawn',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'2026-11-20 12:00:00.000000','m2',NULL);
INSERT INTO "verdicts" VALUES(4,'import:6da5c3357ab58ea9','dddddddddddddddd','person','import','delivery','import',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'2026-11-20 12:00:00.000000',NULL,NULL);
INSERT INTO "verdicts" VALUES(5,'call:2','aaaaaaaaaaaaaaaa','teacher','test-model','billing','label','pppppppppppppppp',1,'{"action": "billing"}',-0.1,10,0,5,0.002,0.2,'2026-11-20 12:00:00.000000',NULL,NULL);
INSERT INTO "verdicts" VALUES(6,'generate:e256155ee405eec1','eeeeeeeeeeeeeeee','writer','test-model','billing','generate','1',0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'2026-11-20 12:00:00.000000',NULL,NULL);
CREATE INDEX verdicts_by_question ON verdicts (question_id);
CREATE TRIGGER verdicts_are_never_edited BEFORE UPDATE ON verdicts BEGIN SELECT RAISE(ABORT, 'a verdict is never edited: append another'); END;
CREATE TRIGGER verdicts_are_never_removed BEFORE DELETE ON verdicts BEGIN SELECT RAISE(ABORT, 'a verdict is never removed: append another'); END;
CREATE TRIGGER questions_never_change BEFORE UPDATE ON questions BEGIN SELECT RAISE(ABORT, 'a question, its group and its split never change'); END;
CREATE INDEX ix_jobs_model ON jobs (model);
CREATE INDEX ix_job_events_job_id ON job_events (job_id);
CREATE INDEX ix_requests_at ON requests (at);
COMMIT;
