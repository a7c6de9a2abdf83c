//! `kiln attest`: statements about what was built and compared here, signed.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use kiln_model::digest::Digest;
use kiln_model::key::{SecretKey, Svid};
use kiln_model::outcome::{Builds, Moment, Outcome};
use kiln_model::report::{Report, Reports};
use kiln_model::statement::{Descriptor, Predicate};
use serde::Serialize;

use super::{Failure, Session};
use crate::build::graph::Graph;
use crate::exit::{self, Kind};
use crate::sign::also::Format;
use crate::sign::{self, Built, Published, SignError, Signer, Texts, Written, key_file, svid};

/// The largest document that is read.
const LARGEST: u64 = 512 << 20;

/// Sign statements about what was built and compared here, the bad outcomes too.
///
/// Takes recipes, derivations, and what `kiln build`, `check` and `rebuild` printed with --json. Each outcome must be in this
/// store's records: a signer signs for its own builds alone. Nothing is run, and nothing is fetched.
#[derive(Debug, Args)]
pub(super) struct Attest {
    /// Recipe directory or its recipe.toml, a derivation (FILE.drv, /nix/store/HASH-NAME.drv), or a document of kiln's (FILE.json)
    #[arg(required = true, value_name = "RECIPE|DRV|FILE.json")]
    what: Vec<PathBuf>,
    /// File with the secret key: `kiln key generate --output FILE`
    #[arg(long, value_name = "FILE", required_unless_present = "svid")]
    key: Option<PathBuf>,
    /// File with an X.509-SVID in PEM, the workload's certificate first, in place of a key that policies name
    #[arg(long, value_name = "FILE", requires = "svid_key", conflicts_with = "key")]
    svid: Option<PathBuf>,
    /// File with the key of that certificate, PKCS#8 in PEM
    #[arg(long, value_name = "FILE", requires = "svid")]
    svid_key: Option<PathBuf>,
    /// File whose first line is the key's passphrase
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// URI of this rebuilder, one for each mode of trust; policies name it together with the key [default: the SVID's SPIFFE id]
    #[arg(long, value_name = "URI", required_unless_present = "svid")]
    builder_id: Option<String>,
    /// Directory for the statements: NAME.json each, and ARTIFACT.intoto.jsonl
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Where the recipe is published: git+https://HOST/REPOSITORY@REF#PATH/recipe.toml, or a purl
    #[arg(long, value_name = "URI")]
    recipe_uri: Option<String>,
    /// The commit that has the recipe
    #[arg(long, value_name = "COMMIT", requires = "recipe_uri")]
    recipe_commit: Option<String>,
    /// The recipe that a document is about, if it does not say
    #[arg(long, value_name = "DIR")]
    recipe: Option<PathBuf>,
    /// Name recipe and lock by their digests only: `kiln rebuild` then needs them from elsewhere
    #[arg(long)]
    without_recipe: bool,
    /// The same facts in another format, too
    #[arg(long, value_enum, value_name = "FORMAT")]
    also: Vec<Other>,
}

/// Another format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Other {
    /// in-toto's test-result/v0.1
    TestResult,
    /// OSS-Rebuild's ArtifactEquivalence@v0.1
    OssRebuild,
    /// A link of in-toto, for layouts
    Link,
}

/// What `kiln attest --json` prints (docs/attested.schema.json).
#[derive(Serialize)]
struct Attested {
    schema: &'static str,
    key: String,
    builder: String,
    files: Vec<String>,
    statements: Vec<Signed>,
}

#[derive(Serialize)]
struct Signed {
    file: String,
    envelope: String,
    predicate_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'static str>,
    subjects: Vec<About>,
}

#[derive(Serialize)]
struct About {
    name: Option<String>,
    sha256: Option<Digest>,
}

/// Whose word statements are.
struct Identity<'a> {
    key: SecretKey,
    /// The builder's id.
    builder: String,
    /// The key's file.
    file: &'a Path,
    /// What vouches for the key, if policies are not to name it.
    svid: Option<Svid>,
}

/// What one of kiln's documents is.
enum Document {
    Outcomes(Vec<Outcome>),
    Reports(Vec<Report>),
}

impl Attest {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        let now = Moment::from_unix(u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default());
        let identity = self.identity(now)?;
        let store = session.store()?;
        if let Some(commit) = &self.recipe_commit
            && !(matches!(commit.len(), 40 | 64)
                && commit.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
        {
            return Err(bad(anyhow!("--recipe-commit {commit}: expected a whole commit id in lower-case hex")));
        }
        let signer = Signer {
            store,
            key: &identity.key,
            builder: identity.builder,
            kiln: Signer::this_program()?,
            separation: sign::separation(store, identity.file)?,
            now,
            published: Published {
                uri: self.recipe_uri.clone(),
                commit: self.recipe_commit.clone(),
                ..Published::default()
            },
            texts: if self.without_recipe { Texts::LeftOut } else { Texts::Carried },
        };
        let mut written = Vec::new();
        let mut links = Vec::new();
        let formats = self.also.iter().map(|other| match other {
            Other::TestResult => Format::TestResult,
            Other::OssRebuild => Format::OssRebuild,
            Other::Link => Format::Link,
        });
        let formats: std::collections::BTreeSet<Format> = formats.collect();
        for what in &self.what {
            let mut these = self.signed(&signer, what)?;
            for format in &formats {
                match format {
                    Format::TestResult => these.extend(signer.test_results(&these)?),
                    Format::OssRebuild => these.extend(signer.equivalences(&these)?),
                    Format::Link => links.extend(signer.link(&these)),
                }
            }
            written.extend(these);
        }
        if written.is_empty() {
            return Err(bad(anyhow!(
                "there is nothing to sign: no outcome, and no published digest that one was held against"
            )));
        }
        apart(&mut written);
        let mut files = sign::write(&self.output, &written, identity.svid.as_ref())?;
        for (name, envelope) in links {
            let path = self.output.join(name);
            session.write_file(&path, &envelope.canonical())?;
            files.push(path);
        }
        self.tell(session, &signer, &written, &files)
    }

    /// Whose word it is: a key's and the id that was given, or an SVID's.
    fn identity(&self, now: Moment) -> Result<Identity<'_>, Failure> {
        let words = self.passphrase_file.as_deref().map(key_file::passphrase).transpose()?;
        if let (Some(certificates), Some(file)) = (&self.svid, &self.svid_key) {
            let (svid, key) = svid::read(certificates, file, words.as_deref(), now)?;
            let builder = svid.id().to_string();
            return match &self.builder_id {
                Some(other) if *other != builder => Err(bad(anyhow!(
                    "--builder-id {other}: the certificate is {builder}'s, and that is the builder's id; leave it out"
                ))),
                _ => Ok(Identity { key, builder, file, svid: Some(svid) }),
            };
        }
        let missing = |option: &str| bad(anyhow!("{option} is needed where there is no --svid"));
        let file = self.key.as_ref().ok_or_else(|| missing("--key"))?;
        let builder = self.builder_id.clone().ok_or_else(|| missing("--builder-id"))?;
        Ok(Identity { key: key_file::secret(file, words.as_deref())?, builder, file, svid: None })
    }

    fn tell(
        &self,
        session: &Session,
        signer: &Signer<'_>,
        written: &[Written],
        files: &[PathBuf],
    ) -> Result<u8, Failure> {
        let signed = |(one, file): (&Written, &PathBuf)| Signed {
            file: file.display().to_string(),
            envelope: one.envelope.id().to_string(),
            predicate_type: one.statement.predicate.kind().into(),
            result: match &one.statement.predicate {
                Predicate::Comparison(comparison) => Some(comparison.result.as_str()),
                Predicate::Provenance(_) | Predicate::Summary(_) | Predicate::Other { .. } => None,
            },
            subjects: one.statement.subject.iter().map(about).collect(),
        };
        let statements: Vec<Signed> = written.iter().zip(files).map(signed).collect();
        if session.json() {
            session.print_json(&Attested {
                schema: "kiln/attested/v1",
                key: signer.key.public().id().to_string(),
                builder: signer.builder.clone(),
                files: files.iter().map(|file| file.display().to_string()).collect(),
                statements,
            })?;
            return Ok(exit::YES);
        }
        for one in &statements {
            let kind = one.result.unwrap_or(one.predicate_type.rsplit('/').nth(1).unwrap_or_default());
            session.print_line(&format!("{}  {kind}  {}", one.envelope, one.file))?;
        }
        Ok(exit::YES)
    }

    fn signed(&self, signer: &Signer<'_>, what: &Path) -> Result<Vec<Written>, Failure> {
        if what.extension().is_none_or(|ending| ending != "json") {
            return Ok(signer.latest(wanted(&self.graph(signer, what)?))?);
        }
        let bytes = read(what)?;
        let mut written = Vec::new();
        match document(&bytes).with_context(|| format!("reading {}", what.display())).map_err(bad)? {
            Document::Outcomes(outcomes) => {
                for outcome in outcomes {
                    let graph = self.graph_of(signer, None, &outcome.derivation)?;
                    written.extend(signer.told(wanted(&graph), &outcome)?);
                }
            }
            Document::Reports(reports) => {
                for report in reports {
                    let derivation =
                        report.derivation.clone().or_else(|| Some(report.outcomes.first()?.derivation.clone()));
                    // Nothing was built, so nobody knows about what.
                    let Some(derivation) = derivation else { continue };
                    let graph = self.graph_of(signer, report.recipe.as_deref(), &derivation)?;
                    written.extend(signer.report(wanted(&graph), &report, Digest::of(&bytes))?);
                }
            }
        }
        Ok(written)
    }

    /// What `derivation` was made from: the recipe that was named, or the derivation in the store.
    fn graph_of(&self, signer: &Signer<'_>, said: Option<&str>, derivation: &str) -> Result<Graph, Failure> {
        let said = said.map(PathBuf::from).filter(|path| path.exists());
        let path = self.recipe.clone().or(said).unwrap_or_else(|| PathBuf::from(derivation));
        let graph = self.graph(signer, &path)?;
        let found = graph.nodes[graph.wanted[0]].path.to_string();
        match found == derivation {
            true => Ok(graph),
            false => {
                let (recipe, expected) = (path.display().to_string(), derivation.to_owned());
                Err(SignError::OtherRecipe { recipe, found, expected }.into())
            }
        }
    }

    fn graph(&self, signer: &Signer<'_>, path: &Path) -> Result<Graph, Failure> {
        Ok(Graph::load(&[path.to_path_buf()], signer.store)?)
    }
}

fn wanted(graph: &Graph) -> Built<'_> {
    Built { graph, index: graph.wanted[0] }
}

fn about(subject: &Descriptor) -> About {
    About { name: subject.name.clone(), sha256: subject.digest.sha256() }
}

/// Two targets may have one name: their files must not.
fn apart(written: &mut [Written]) {
    let mut names = std::collections::BTreeSet::new();
    for one in written {
        let name = one.name.clone();
        let mut number = 1;
        while !names.insert(one.name.clone()) {
            number += 1;
            one.name = format!("{name}-{number}");
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let size = std::fs::metadata(path).with_context(|| format!("reading {}", path.display())).map_err(bad)?.len();
    if size > LARGEST {
        return Err(bad(anyhow!(
            "{} is larger than {} MiB: expected a document of kiln's",
            path.display(),
            LARGEST >> 20
        )));
    }
    std::fs::read(path).with_context(|| format!("reading {}", path.display())).map_err(bad)
}

fn document(bytes: &[u8]) -> anyhow::Result<Document> {
    #[derive(serde::Deserialize)]
    struct Head {
        schema: String,
    }
    use kiln_model::{outcome, report};
    let head: Head = serde_json::from_slice(bytes).context("expected a document with a schema field")?;
    Ok(match head.schema.as_str() {
        outcome::SCHEMA => Document::Outcomes(vec![serde_json::from_slice(bytes)?]),
        outcome::BUILDS_SCHEMA => Document::Outcomes(serde_json::from_slice::<Builds>(bytes)?.builds),
        report::SCHEMA => Document::Reports(vec![serde_json::from_slice(bytes)?]),
        report::REPORTS_SCHEMA => Document::Reports(serde_json::from_slice::<Reports>(bytes)?.reports),
        other => anyhow::bail!("schema {other:?} has no outcomes: expected builds or a report"),
    })
}

fn bad(error: anyhow::Error) -> Failure {
    Failure { kind: Kind::BadInput, error }
}
