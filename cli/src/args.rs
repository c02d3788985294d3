//! The command line, as people read it in `--help`.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use vigia_model::calibration::Severity;
use vigia_model::estimators::quantized::Precision;
use vigia_model::pipeline::EstimatorKind;
use vigia_model::syscalls::{Arch, Fingerprint};

use crate::error::Failure;
use crate::files::Given;
use crate::filter::{Filter, FilterError};
use crate::say::Out;

/// Learns how a workload normally talks to the kernel, and tells when it behaves otherwise.
#[derive(Debug, Parser)]
#[command(
    name = "vigia",
    bin_name = "vigia",
    version,
    propagate_version = true,
    after_help = "\
Examples:
  sudo vigia trace -c -- make                      what system calls does make make?
  sudo vigia trace -p 4711 --output w.parquet      record windows of a running process
  vigia train --input w.parquet -o model.apr       learn what is normal
  sudo vigia trace -p 4711 --load-model model.apr --unsigned
                                                   and watch it, with a verdict on each window

Exit codes: 0 done, 1 the answer is no (not verified, something odd), 2 wrong command line,
3 wrong input, 4 cannot write, 5 cannot trace here. `vigia trace -- CMD` ends with CMD's code."
)]
pub struct Vigia {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Trace(Box<Trace>),
    Train(Train),
    Score(Score),
    Keygen(Keygen),
    Sign(Sign),
    Encrypt(Encrypt),
    Decrypt(Decrypt),
    Verify(Verify),
    Inspect(Inspect),
    Convert(Convert),
    Status(Status),
    Completions(Completions),
    #[command(hide = true)]
    Man(Man),
}

/// How to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: one JSON document, or one a line.
    Json,
}

/// Which model, and why to believe it.
#[derive(Debug, Args)]
pub struct Trusted {
    /// Public key that must have signed the model: base64, or a file of keys; may be repeated.
    #[arg(long = "key", value_name = "KEY|FILE")]
    pub keys: Vec<String>,
    /// Take a model that nobody has signed, such as one just trained here.
    #[arg(long, conflicts_with = "keys")]
    pub unsigned: bool,
    /// File of the key that the model is encrypted with (see `vigia encrypt`).
    #[arg(long, value_name = "FILE")]
    pub content_key: Option<PathBuf>,
}

impl Trusted {
    /// The files that are named, as far as one can see: a key may be given as it is.
    pub fn files(&self) -> Vec<Given<'_>> {
        let keys = self.keys.iter().map(|key| ("--key", Path::new(key)));
        let content = self
            .content_key
            .iter()
            .map(|path| ("--content-key", path.as_path()));
        keys.chain(content).collect()
    }
}

/// Trace the system calls of a command, of processes, or of a cgroup.
///
/// Without further options each call is a line, as with strace: name, arguments, result. That is done by ptrace(2), which
/// stops the target twice for each call.
///
/// With -c (a table at the end), --window (a table each time), --output, --save-model, --load-model, --baseline or --cgroup
/// calls are counted
/// instead, in the kernel by eBPF: nothing is stopped, and little is slowed down. That needs CAP_BPF and CAP_PERFMON:
/// run it as root. Where it may not be, commands and processes are counted by ptrace, and that is said.
///
/// A first SIGTERM or SIGHUP is passed on to the command, which gets a terminal's Ctrl-C itself. A second signal, or a second
/// Ctrl-C within two seconds, ends the trace: the command goes on untraced, if it goes on, and the exit code is 128 and the
/// signal's number. Where there is no command, the first one ends it, and what was seen is kept.
///
/// With a command, the report goes to standard error, as strace's does; with --format json it goes to standard output,
/// and what the command prints goes to standard error. Times are wall-clock time between a call's begin and its return.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vigia trace -f -T -- sh -c 'ls | wc'             a line for each call, children too, with times
  sudo vigia trace -c -f -- make                   one table at the end, children counted too
  sudo vigia trace -c -e trace=%file,!openat -- ls only some system calls
  sudo vigia trace -c --ml-anomaly -- ls           which system calls are slow?
  sudo vigia trace --window 1s -- redis-server     a table each second
  sudo vigia trace -f -p $(pidof nginx | tr ' ' ,) --duration 5m --output nginx.parquet
  sudo vigia trace -c --format json -- ls > run.json; sudo vigia trace -c --baseline run.json -- ls
  sudo vigia trace --cgroup system.slice/sshd.service --format json
  sudo vigia trace -p 4711 --load-model model.apr --key release.pub")]
pub struct Trace {
    /// Only one table, of the whole time: how often, how long, how many errors.
    #[arg(short = 'c', long)]
    pub summary: bool,
    /// Trace also what the processes start, and with -p what they have started, until the last of them ends. Threads are
    /// always traced, and so is everything in a cgroup.
    #[arg(short = 'f', long)]
    pub follow: bool,
    /// Show how long calls take (-c does so anyway).
    #[arg(short = 'T', long = "times")]
    pub times: bool,
    /// Look at some system calls only: trace=SET, as strace has it. A set is a list of names, numbers, classes (%file,
    /// %network, %process, %memory, %ipc, %signal, %desc, %creds, %clock, %pure, %stat and its kin), /regular expressions, all or none; a ! in
    /// front negates it, a ! before an item takes that one away, a ? before a name lets it be unknown. A model is for
    /// windows of the set that it was trained on.
    #[arg(short = 'e', long = "expr", value_name = "trace=SET", value_parser = filter, overrides_with = "filter")]
    pub filter: Option<Filter>,
    /// Trace running processes; several with commas. The id of a thread stands for its process.
    #[arg(
        short,
        long = "pid",
        value_name = "PID",
        value_delimiter = ',',
        group = "target"
    )]
    pub pids: Vec<u32>,
    /// Trace a cgroup and those in it: a folder, or its path below the hierarchy's root.
    #[arg(long, value_name = "PATH", group = "target")]
    pub cgroup: Option<PathBuf>,
    /// Trace a command, from its first system call to its end. What follows -- is the command's.
    #[arg(last = true, value_name = "CMD", group = "target")]
    pub command: Vec<String>,
    /// End after this time (a command is then left running no longer: it is told to terminate, and killed if it does not).
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Count in windows of this length, between 100ms and 1h (2s if not said), instead of a line for each call. Train and score with windows
    /// of one length.
    #[arg(long, value_name = "TIME", value_parser = window)]
    pub window: Option<Duration>,
    /// How long a command takes to start (2s if not said): the windows that begin within this time, the first one in any
    /// case, are its start, from which nothing is learnt. Give it more for what is slow to come up, and 0s for what starts
    /// at once.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub warm_up: Option<Duration>,
    /// Record windows: .parquet for `vigia train`, .jsonl for `vigia train` and people. The windows in which a command that
    /// is traced from its start comes up (see --warm-up) and that in which it ends teach nothing, nor does one that was cut
    /// short. Lines have them, marked; Parquet leaves them out, and a trace that has no others fails (3).
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Count also which calls come after which in a thread, as sequences of up to six, and record that: for `vigia train
    /// --estimator n-gram,stide`. A call then costs about as much again. With a model that looks at sequences it is done
    /// anyway.
    #[arg(long)]
    pub sequences: bool,
    /// At the end, train a model on the windows of this trace from which something can be learnt (see --output), as
    /// `vigia train` does; 50 are the least.
    #[arg(long, value_name = "FILE")]
    pub save_model: Option<PathBuf>,
    /// At the end, compare this run with a recorded one, each as a whole, with how it begins and ends: calls a second over
    /// its length, the mean time of a call, and which system calls are new or gone. So runs of different lengths compare
    /// where they do the same all the time; what a command does once, as it starts, is rarer a second in a longer run. The
    /// recorded run is what `-c --format json > run.json` wrote, or --output run.jsonl, which has times only with -T.
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// Score each whole window with this model and say what is odd: live, also with -c, whose JSON document has the verdicts in
    /// it. A command's start is odd to it, and is shown as its
    /// start. Your own file needs no key if it is not signed and nobody else may write to it.
    #[arg(long = "load-model", visible_alias = "model", value_name = "FILE")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub trusted: Trusted,
    #[command(flatten)]
    pub ml: Ml,
    /// How to answer.
    #[arg(short = 'o', long = "format", value_name = "FORMAT", default_value = "text")]
    pub format: Format,
}

/// What is analysed beside counting.
#[derive(Debug, Clone, Default, Args)]
pub struct Ml {
    /// At the end, put the mean times of system calls into clusters and name those that are slow.
    #[arg(long)]
    pub ml_anomaly: bool,
    /// How many clusters, 2 or more (3 if not said; never more than there are kinds of system calls). Means --ml-anomaly.
    #[arg(long, value_name = "K", value_parser = clusters)]
    pub ml_clusters: Option<usize>,
    /// Compare the anomalies with those that z-scores above 3 find. Means --ml-anomaly. A z-score is of the mean times of
    /// all kinds of system calls, its own among them, so that with ten kinds or fewer none can be above 3; it is said
    /// where that is so.
    #[arg(long)]
    pub ml_compare: bool,
    /// Say at once when a system call takes unusually long or short: 3 (low), 4 (medium), 5 (high) standard deviations
    /// from the last hundred times. Where each call is a line: counting sees no single times.
    #[arg(long)]
    pub anomaly_realtime: bool,
}

impl Ml {
    /// Whether there is to be an analysis at the end.
    pub fn is_wanted(&self) -> bool {
        self.ml_anomaly || self.ml_compare || self.ml_clusters.is_some()
    }
}

impl Trace {
    /// Whether there is a line for each call, rather than counts.
    pub fn prints_lines(&self) -> bool {
        let counts = self.summary || self.window.is_some() || self.cgroup.is_some();
        let windows = self.output.is_some() || self.model.is_some() || self.save_model.is_some();
        !counts && !windows && !self.sequences && self.baseline.is_none()
    }

    /// Which calls are looked at.
    pub fn capture(&self) -> Option<Fingerprint> {
        let all = Some(Fingerprint::ALL);
        self.filter
            .as_ref()
            .map_or(all, |filter| filter.fingerprint(Arch::NATIVE))
    }

    /// Where the report goes.
    pub fn out(&self) -> Out {
        if self.command.is_empty() || self.format == Format::Json {
            Out::Stdout
        } else {
            Out::Stderr
        }
    }

    /// Whether it matters how long calls take.
    pub fn wants_times(&self) -> bool {
        let compared = self.baseline.is_some() || self.ml.is_wanted();
        self.summary || self.times || compared
    }
}

/// Learn what is normal from recorded windows.
///
/// Fits estimators (if nothing is said an isolation forest, a deviation model and a count of what is new), calibrates
/// their scores on windows held out from training, and validates: HoldoutExceedance is the share of those that the model
/// calls odd, InjectionRecall the share that it finds once calls are put into them that it had never seen. A model that the
/// default gates of a cluster would refuse is told of, with the windows that stand out. The same windows and seed make the
/// same bytes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vigia train --input monday.parquet tuesday.parquet -o model.apr
  vigia train --input windows.jsonl -o model.apr --sign-key vigia.key --name checkout
  vigia train --input windows.parquet --estimator deviation,kmeans,pca --pca 8
  vigia train --input normal.parquet --malicious exercise.parquet \\
    --estimator deviation,isolation-forest,novelty,random-forest")]
pub struct Train {
    /// Windows of normal behaviour: .parquet or .jsonl as `vigia trace --output` records them; at most 2,000,000, of at most
    /// 4 GiB in memory, with those of the other classes.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    pub input: Vec<PathBuf>,
    /// Windows of the same workload, recorded while something ran that nobody should run there, though it may be harmless. The
    /// classifiers (random-forest, mlp-classifier) learn them beside those that are made up of normal ones: for this class,
    /// usual rates in mixtures that are not. Nothing else learns from them, nor is scaled or calibrated by them. 10 are the
    /// least; a fifth of them (5 at least) is held out, of which SuspiciousRecall is the share that has a severity (low at
    /// least), and RandomForestSuspiciousRecall the share that this classifier calls so. Record while it ran and no longer: what
    /// is normal in between teaches that the normal is not. However few there are, they are repeated until
    /// they weigh as much as those that are made up.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub suspicious: Vec<PathBuf>,
    /// The same of an attack, from an exercise or an incident: MaliciousRecall, and so on. They are learnt beside made-up windows
    /// with calls that are never made. Windows of one recording are alike, and those held out are no other attack: `vigia score`
    /// on a recording of another says how the model does there.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub malicious: Vec<PathBuf>,
    /// Where the model goes.
    #[arg(short, long, value_name = "FILE", default_value = "model.apr")]
    pub output: PathBuf,
    /// Sign it with this key (see `vigia keygen`).
    #[arg(long, value_name = "FILE")]
    pub sign_key: Option<PathBuf>,
    /// Name that the model bears.
    #[arg(long, default_value = "local", value_parser = NonEmptyStringValueParser::new())]
    pub name: String,
    /// Estimators of the model, with commas: several make an ensemble. n-gram, n-gram-peak and stide look at sequences of
    /// calls: they take what `vigia trace --sequences` records, or the Parquet files of an agent that traces in mode Sampled
    /// or Full.
    #[arg(
        long = "estimator",
        value_name = "KIND",
        value_delimiter = ',',
        default_values_t = EstimatorKind::DEFAULT,
        value_parser = estimator()
    )]
    pub estimators: Vec<EstimatorKind>,
    /// Put so many principal components in front of the estimators that measure distances; `pca` itself keeps so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub pca: Option<u32>,
    /// Trees of the isolation forest.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub trees: u32,
    /// Windows that each tree sees.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(2..=256))]
    pub sample_size: u32,
    /// Seed of whatever is drawn.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// How to answer.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Format,
}

/// Score recorded windows with a model.
///
/// Each verdict names the estimator that was the most surprised, as TrainingRuns write it, and what drove it: calls whose
/// rates stand out or, where NGram, NGramPeak or STIDE spoke, sequences of calls, and then only rates that are odd beyond
/// doubt too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vigia score --model model.apr --key release.pub --input today.parquet
  vigia score --model model.apr --unsigned --input today.jsonl --from medium --fail")]
pub struct Score {
    /// The model. Your own file needs no key if it is not signed and nobody else may write to it.
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    #[command(flatten)]
    pub trusted: Trusted,
    /// Windows: .parquet or .jsonl as `vigia trace --output` records them.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    pub input: Vec<PathBuf>,
    /// Show windows from this severity on.
    #[arg(long, value_name = "SEVERITY", default_value = "low", value_parser = severity)]
    pub from: Severity,
    /// Exit with 1 when a window is shown in which no command began or ended, and with 3 when there is no window at all.
    #[arg(long)]
    pub fail: bool,
    /// How to answer.
    #[arg(short = 'o', long = "format", value_name = "FORMAT", default_value = "text")]
    pub format: Format,
}

/// Make a signing key: writes a private file, prints the public key.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vigia keygen release.key > release.pub
  vigia keygen -y release.key > release.pub        the public key once more
  vigia keygen --content content.key
  kubectl create secret generic vigia-signing-key -n vigia-system --from-file=ed25519.seed=release.key")]
pub struct Keygen {
    /// File of the private key; without -y it must not exist yet. Mode 0600, the base64 of a 32-byte seed behind
    /// `vigia-signing-key:`, or behind `vigia-content-key:` if it is one to encrypt with.
    #[arg(value_name = "FILE", default_value = "vigia.key")]
    pub file: PathBuf,
    /// Make a key to encrypt models with instead (see `vigia encrypt`); its id is printed, and is no secret.
    #[arg(long)]
    pub content: bool,
    /// Make no key: print again the public one of the private key in FILE, or the id of one to encrypt with.
    #[arg(short = 'y', long)]
    pub public: bool,
    /// How to answer.
    #[arg(short = 'o', long = "format", value_name = "FORMAT", default_value = "text")]
    pub format: Format,
}

/// Sign a model.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vigia sign --key release.key model.apr
  vigia sign --key release.key model.apr --output signed.apr")]
pub struct Sign {
    /// The unsigned model.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// File of the private key (see `vigia keygen`), readable by its owner alone.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Where the signed model goes; in the place of the unsigned one if not said.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// How to answer.
    #[arg(short = 'o', long = "format", value_name = "FORMAT", default_value = "text")]
    pub format: Format,
}

/// Encrypt a model with AES-256-GCM; what it says about itself stays readable. Sign it afterwards.
///
/// Commands that score read it with --content-key. Operator and agents hold no such key: they refuse it as Encrypted.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vigia keygen --content content.key
  vigia encrypt --content-key content.key model.apr --output sealed.apr
  vigia sign --key release.key sealed.apr")]
pub struct Encrypt {
    /// The model, which nobody has signed yet.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// File of the key (see `vigia keygen --content`), readable by its owner alone.
    #[arg(long, value_name = "FILE")]
    pub content_key: PathBuf,
    /// Where the encrypted model goes; in the place of the other if not said.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Decrypt a model: the bytes from before `vigia encrypt`, without a signature. Whose it is, `vigia verify` says.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vigia decrypt --content-key content.key sealed.apr --output model.apr")]
pub struct Decrypt {
    /// The encrypted model.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// File of the key that it was encrypted with.
    #[arg(long, value_name = "FILE")]
    pub content_key: PathBuf,
    /// Where the readable model goes.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
}

/// Check a model as a node does: signature, structure, every index. Exit code 1 says that it does not hold.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vigia verify --key release.pub model.apr
  vigia verify --key 'WsN0…=' -o json model.apr && kubectl apply -f version.yaml")]
pub struct Verify {
    /// The model.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Public key that must have signed it: base64, or a file of keys; may be repeated.
    #[arg(long = "key", value_name = "KEY|FILE", required = true)]
    pub keys: Vec<String>,
    /// File of the key that the model is encrypted with.
    #[arg(long, value_name = "FILE")]
    pub content_key: Option<PathBuf>,
    /// How to answer.
    #[arg(short = 'o', long = "format", value_name = "FORMAT", default_value = "text")]
    pub format: Format,
}

/// Show what a model says about itself. Nothing of it is verified unless a key is given.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vigia inspect model.apr
  vigia inspect model.apr -o json | jq .metrics")]
pub struct Inspect {
    /// The model.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Verify it with this public key too: base64, or a file of keys; may be repeated.
    #[arg(long = "key", value_name = "KEY|FILE")]
    pub keys: Vec<String>,
    /// File of the key that the model is encrypted with: exit code 1 says that it is another.
    #[arg(long, value_name = "FILE")]
    pub content_key: Option<PathBuf>,
    /// How to answer.
    #[arg(short = 'o', long = "format", value_name = "FORMAT", default_value = "text")]
    pub format: Format,
}

/// Write a file in another format.
///
/// Windows: .jsonl to .parquet, and back as vectors (a Parquet file holds no more). Models: .apr to .json, which says
/// what a model says about itself, and nothing of it is verified; to .gguf, its parameters as tensors for other tools;
/// and with --quantize to .apr, unsigned, or to .gguf, with the weights of its networks in few bits.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vigia convert windows.jsonl windows.parquet
  vigia convert windows.parquet vectors.jsonl
  vigia convert model.apr model.json
  vigia convert --unsigned model.apr model.gguf
  vigia convert model.apr small.apr --quantize q8_0 --on today.parquet")]
pub struct Convert {
    /// What to read.
    #[arg(value_name = "FROM")]
    pub from: PathBuf,
    /// What to write.
    #[arg(value_name = "TO")]
    pub to: PathBuf,
    /// Store the weights of networks in 8 or 4 bits.
    #[arg(long, value_name = "q8_0|q4_0")]
    pub quantize: Option<Precision>,
    /// Windows on which to say how much scores differ afterwards; may be repeated. Without them, that is not measured, and
    /// the model says so.
    #[arg(long, value_name = "FILE", requires = "quantize")]
    pub on: Vec<PathBuf>,
    #[command(flatten)]
    pub trusted: Trusted,
}

/// Show what goes on in a cluster: Models and their rollouts, profiles, trainings, nodes, the last alerts.
///
/// Asks the cluster of KUBECONFIG, or of kubectl's current context, and changes nothing. Also as `kubectl vigia status`,
/// where this program is installed as kubectl-vigia.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl vigia status
  kubectl vigia status -n shop
  vigia status -o json | jq .nodes.notReady")]
pub struct Status {
    /// Only what is in this namespace; nodes are in none.
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// How to answer.
    #[arg(short = 'o', long = "format", value_name = "FORMAT", default_value = "text")]
    pub format: Format,
}

/// Print completions for a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vigia completions bash > /etc/bash_completion.d/vigia
  source <(vigia completions bash)")]
pub struct Completions {
    /// Which shell.
    pub shell: clap_complete::Shell,
}

/// Write the manual pages.
#[derive(Debug, Args)]
pub struct Man {
    /// Folder that they are written to.
    pub folder: PathBuf,
}

/// Refuses a list that names one twice.
///
/// # Errors
/// Which it is.
pub fn once<T: PartialEq + Display>(option: &str, list: &[T]) -> Result<(), Failure> {
    let again = (1..list.len()).find(|&at| list[..at].contains(&list[at]));
    again.map_or(Ok(()), |at| {
        Err(Failure::command_line(format!("{option}: {} twice", list[at])).next("name each once"))
    })
}

fn filter(text: &str) -> Result<Filter, FilterError> {
    Filter::parse(text, Arch::NATIVE)
}

fn clusters(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(k) if k >= 2 => Ok(k),
        Ok(_) => Err("at least 2 clusters are needed: one alone tells nothing apart".to_owned()),
        Err(_) => Err("write a whole number, 2 or more".to_owned()),
    }
}

fn estimator() -> impl clap::builder::TypedValueParser<Value = EstimatorKind> {
    use clap::builder::{PossibleValuesParser, TypedValueParser};
    PossibleValuesParser::new(EstimatorKind::ALL.map(EstimatorKind::as_str))
        .try_map(|name| name.parse::<EstimatorKind>())
}

fn severity(text: &str) -> Result<Severity, String> {
    [Severity::None, Severity::Low, Severity::Medium, Severity::High]
        .into_iter()
        .find(|s| s.as_str() == text)
        .ok_or_else(|| "write none, low, medium or high".to_owned())
}

/// `300ms`, `2s`, `5m`, `1h`, or several in a row.
fn duration(text: &str) -> Result<Duration, String> {
    match time(text)? {
        Duration::ZERO => Err("write a time from 1ms".to_owned()),
        time => Ok(time),
    }
}

/// Like [`duration`], or none at all.
fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time; write for example 300ms, 2s, 5m or 1h30m");
    let (mut rest, mut total) = (text, Duration::ZERO);
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let part = number.checked_mul(unit_ms).ok_or_else(wrong)?;
        total = total.checked_add(Duration::from_millis(part)).ok_or_else(wrong)?;
        rest = tail;
    }
    Ok(total)
}

fn window(text: &str) -> Result<Duration, String> {
    let window = time(text)?;
    let (least, most) = (Duration::from_millis(100), Duration::from_secs(3600));
    if (least..=most).contains(&window) {
        Ok(window)
    } else {
        Err("write a time between 100ms and 1h".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Vigia::command().debug_assert();
    }

    #[test]
    fn times_are_written_as_in_go() {
        let ms = |text| duration(text).map(|d| d.as_millis());
        assert_eq!(ms("2s"), Ok(2_000));
        assert_eq!(ms("1h30m"), Ok(5_400_000));
        assert_eq!(ms("300ms"), Ok(300));
        for wrong in ["", "2", "s", "-1s", "1.5s", "0s", "2 s", "99999999999999999999s"] {
            assert!(ms(wrong).is_err(), "{wrong}");
        }
        for wrong in ["0s", "50ms", "2h"] {
            assert!(
                window(wrong).is_err_and(|why| why.contains("between 100ms and 1h")),
                "{wrong}"
            );
        }
        assert!(duration("0s").is_err_and(|why| why.contains("1ms")));
        assert_eq!(
            (time("0s"), time("0m1ms")),
            (Ok(Duration::ZERO), Ok(Duration::from_millis(1)))
        );
        assert!(time("").is_err() && time("0").is_err());
    }
}
