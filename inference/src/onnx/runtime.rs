//! The operator's ONNX Runtime: a library named at the start, loaded once a process; nothing of it is linked.

use std::borrow::Cow;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};

use ort::environment::Environment;
use ort::ep;
use ort::session::builder::{PrepackedWeights, SessionBuilder};
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Outlet, TensorElementType, Value, ValueType};

use super::engine::{Engine, Kind, Port};
use super::graph::GraphModel;
use super::section::Section;
use crate::manifest::Device;
use crate::model::{Model, RunsOn, Tensor, TensorData};
use crate::open::OpenError;
use crate::package::Package;

/// Opens a package whose backend is `onnxruntime`.
///
/// # Errors
/// [`OpenError`]; [`OpenError::Unavailable`] when there is no library, or no GPU for `device = "cuda"`.
pub(crate) fn open(package: &Package, library: Option<&Path>) -> Result<Box<dyn Model>, OpenError> {
    let library = library.ok_or_else(|| {
        OpenError::Unavailable("the backend onnxruntime needs an ONNX Runtime library; none is configured".to_owned())
    })?;
    let environment = environment(library)?;
    let section: Section = package.manifest.section()?;
    let engine = || Ok(Box::new(Runtime::load(package, &section, &environment, name(library))?) as Box<dyn Engine>);
    Ok(Box::new(GraphModel::open(package, &section, "onnx", engine)?))
}

/// The process's one environment. A library is loaded once; the first that can be used stays.
fn environment(library: &Path) -> Result<Environment, OpenError> {
    static LOADED: Mutex<Option<Environment>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*loaded {
        return Ok(environment.clone());
    }
    let refused = |reason: String| OpenError::Unavailable(format!("no ONNX Runtime can be had: {reason}"));
    // A file that is some other library makes the binding panic.
    let environment = catch_unwind(AssertUnwindSafe(|| {
        let builder = ort::init_from(library).map_err(|error| refused(error.to_string()))?;
        builder.with_telemetry(false).build().map_err(|error| refused(error.to_string()))
    }))
    .unwrap_or_else(|_| Err(refused(format!("{} is no ONNX Runtime", library.display()))))?;
    *loaded = Some(environment.clone());
    Ok(environment)
}

struct Runtime {
    sessions: Sessions,
    inputs: Vec<(Port, TensorElementType)>,
    input_ports: Vec<Port>,
    output_ports: Vec<Port>,
    runs_on: RunsOn,
    bytes: u64,
}

impl Runtime {
    fn load(
        package: &Package,
        section: &Section,
        environment: &Environment,
        engine: String,
    ) -> Result<Self, OpenError> {
        let runtime = &package.manifest.runtime;
        let graph = package.file(&section.file)?;
        let mut data = Vec::new();
        for name in &section.data {
            data.push((name.clone(), std::sync::Arc::<[u8]>::from(package.file(name)?.into_owned())));
        }
        let bytes = graph.len() as u64 + data.iter().map(|(_, data)| data.len() as u64).sum::<u64>();
        let shared = PrepackedWeights::new();
        let build = |gpu: bool| -> Result<Vec<Session>, String> {
            let one = || session(environment, &graph, &data, &shared, gpu).map_err(|error| error.to_string());
            (0..runtime.instances).map(|_| one()).collect()
        };
        let on_gpu = |reason: String| {
            OpenError::Unavailable(format!("device = \"cuda\": this graph cannot run on a GPU here: {reason}"))
        };
        let (sessions, device) = match runtime.device {
            Device::Cpu => (build(false).map_err(|reason| broken(section, &reason))?, "cpu"),
            Device::Cuda => (build(true).map_err(on_gpu)?, "cuda:0"),
            Device::Auto => match build(true) {
                Ok(sessions) => (sessions, "cuda:0"),
                Err(reason) => {
                    tracing::info!(
                        model = package.manifest.name,
                        reason,
                        "no GPU for this model: it runs on the processor"
                    );
                    (build(false).map_err(|reason| broken(section, &reason))?, "cpu")
                }
            },
        };
        let first = sessions.first().ok_or_else(|| broken(section, "no instance was asked for"))?;
        let inputs: Vec<(Port, TensorElementType)> = first.inputs().iter().map(port).collect();
        let output_ports = first.outputs().iter().map(|outlet| port(outlet).0).collect();
        Ok(Self {
            input_ports: inputs.iter().map(|(port, _)| port.clone()).collect(),
            inputs,
            output_ports,
            runs_on: RunsOn { engine, device: device.to_owned() },
            bytes: bytes * (1 + runtime.instances as u64),
            sessions: Sessions { free: Mutex::new(sessions), returned: Condvar::new() },
        })
    }
}

impl Engine for Runtime {
    fn runs_on(&self) -> RunsOn {
        self.runs_on.clone()
    }

    fn resident_bytes(&self) -> u64 {
        self.bytes
    }

    fn inputs(&self) -> &[Port] {
        &self.input_ports
    }

    fn outputs(&self) -> &[Port] {
        &self.output_ports
    }

    fn run(&self, inputs: Vec<Tensor>, outputs: &[usize]) -> Result<Vec<Tensor>, String> {
        let inputs = inputs.into_iter().map(|tensor| self.feed(tensor)).collect::<Result<Vec<_>, _>>()?;
        let mut session = self.sessions.take();
        let values = session.run(inputs).map_err(|error| error.to_string())?;
        outputs
            .iter()
            .map(|place| {
                let name = &self.output_ports[*place].name;
                let value = values.get(name).ok_or_else(|| format!("the output {name:?} did not come"))?;
                read(value, name).map_err(|error| format!("the output {name:?}: {error}"))
            })
            .collect()
    }
}

impl Runtime {
    fn feed(&self, tensor: Tensor) -> Result<(Cow<'static, str>, SessionInputValue<'static>), String> {
        let (port, kind) = self
            .inputs
            .iter()
            .find(|(port, _)| port.name == tensor.name)
            .ok_or_else(|| format!("there is no input {:?}", tensor.name))?;
        let value = value(tensor, *kind).map_err(|error| format!("the input {:?}: {error}", port.name))?;
        Ok((Cow::Owned(port.name.clone()), value.into()))
    }
}

fn session(
    environment: &Environment,
    graph: &[u8],
    data: &[(String, std::sync::Arc<[u8]>)],
    shared: &PrepackedWeights,
    gpu: bool,
) -> ort::Result<Session> {
    // One thread a session, as many sessions as there are instances: see `embedded::Pools`.
    let mut builder: SessionBuilder =
        Session::builder(environment)?.with_intra_threads(1)?.with_inter_threads(1)?.with_prepacked_weights(shared)?;
    if gpu {
        // Without this a session that cannot have its GPU quietly takes the processor.
        builder = builder.with_execution_providers([ep::CUDA::default().build().error_on_failure()])?;
    }
    for (name, data) in data {
        builder = builder.with_external_initializer_file_in_memory(name, std::sync::Arc::clone(data))?;
    }
    builder.commit_from_memory(graph)
}

fn port(outlet: &Outlet) -> (Port, TensorElementType) {
    let (kind, element, shape) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            let kind = match ty {
                TensorElementType::Float32 | TensorElementType::Float64 => Kind::Float,
                TensorElementType::Int8
                | TensorElementType::Int16
                | TensorElementType::Int32
                | TensorElementType::Int64
                | TensorElementType::Uint8
                | TensorElementType::Bool => Kind::Int,
                TensorElementType::String => Kind::Text,
                other => Kind::Other(other.to_string()),
            };
            (kind, *ty, Some(shape.iter().map(|length| usize::try_from(*length).ok().filter(|it| *it > 0)).collect()))
        }
        other => (Kind::Other(other.to_string()), TensorElementType::Float32, None),
    };
    (Port { name: outlet.name().to_owned(), kind, shape }, element)
}

fn value(tensor: Tensor, kind: TensorElementType) -> Result<DynValue, String> {
    use TensorElementType as Element;
    let shape = tensor.shape;
    let made = match (tensor.data, kind) {
        (TensorData::F32(values), Element::Float32) => Value::from_array((shape, values)).map(Value::into_dyn),
        (TensorData::F32(values), Element::Float64) => {
            Value::from_array((shape, values.into_iter().map(f64::from).collect::<Vec<_>>())).map(Value::into_dyn)
        }
        (TensorData::I64(values), Element::Int64) => Value::from_array((shape, values)).map(Value::into_dyn),
        (TensorData::I64(values), Element::Int32) => {
            Value::from_array((shape, narrow::<i32>(values)?)).map(Value::into_dyn)
        }
        (TensorData::I64(values), Element::Int16) => {
            Value::from_array((shape, narrow::<i16>(values)?)).map(Value::into_dyn)
        }
        (TensorData::I64(values), Element::Int8) => {
            Value::from_array((shape, narrow::<i8>(values)?)).map(Value::into_dyn)
        }
        (TensorData::I64(values), Element::Uint8) => {
            Value::from_array((shape, narrow::<u8>(values)?)).map(Value::into_dyn)
        }
        (TensorData::I64(values), Element::Bool) => {
            Value::from_array((shape, values.into_iter().map(|it| it != 0).collect::<Vec<_>>())).map(Value::into_dyn)
        }
        (TensorData::Text(values), Element::String) => {
            Value::from_string_array((shape, values.as_slice())).map(Value::into_dyn)
        }
        (_, kind) => return Err(format!("it wants {kind}")),
    };
    made.map_err(|error| error.to_string())
}

fn narrow<T: TryFrom<i64>>(values: Vec<i64>) -> Result<Vec<T>, String> {
    values.into_iter().map(|value| T::try_from(value).map_err(|_| "a whole number is too large".to_owned())).collect()
}

fn read(value: &DynValue, name: &str) -> Result<Tensor, String> {
    use TensorElementType as Element;
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else { return Err("it is no tensor".to_owned()) };
    let shape = shape.iter().map(|length| usize::try_from(*length).unwrap_or(0)).collect();
    let data = match ty {
        Element::Float32 => value.try_extract_tensor::<f32>().map(|(_, it)| TensorData::F32(it.to_vec())),
        #[expect(clippy::cast_possible_truncation, reason = "answers are given in single precision")]
        Element::Float64 => value
            .try_extract_tensor::<f64>()
            .map(|(_, it)| TensorData::F32(it.iter().map(|value| *value as f32).collect())),
        Element::Int64 => value.try_extract_tensor::<i64>().map(|(_, it)| TensorData::I64(it.to_vec())),
        Element::Int32 => value.try_extract_tensor::<i32>().map(|(_, it)| whole(it)),
        Element::Int16 => value.try_extract_tensor::<i16>().map(|(_, it)| whole(it)),
        Element::Int8 => value.try_extract_tensor::<i8>().map(|(_, it)| whole(it)),
        Element::Uint8 => value.try_extract_tensor::<u8>().map(|(_, it)| whole(it)),
        Element::Bool => value.try_extract_tensor::<bool>().map(|(_, it)| whole(it)),
        Element::String => value.try_extract_strings().map(|(_, it)| TensorData::Text(it)),
        other => return Err(format!("{other} cannot be read")),
    };
    Ok(Tensor { name: name.to_owned(), shape, data: data.map_err(|error| error.to_string())? })
}

fn whole<T: Copy + Into<i64>>(values: &[T]) -> TensorData {
    TensorData::I64(values.iter().map(|value| (*value).into()).collect())
}

/// Such as `onnxruntime 1.32`, from the name of the library's file: the library itself says it to nobody.
fn name(library: &Path) -> String {
    let file = library.canonicalize().unwrap_or_else(|_| library.to_owned());
    let version = file.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once(".so."));
    let version = version.map(|(_, version)| version.split('.').take(2).collect::<Vec<_>>().join("."));
    version.map_or_else(|| "onnxruntime".to_owned(), |version| format!("onnxruntime {version}"))
}

fn broken(section: &Section, reason: &str) -> OpenError {
    OpenError::Broken(format!("{}: no graph ONNX Runtime can run: {reason}", section.file))
}

/// A session answers one call at a time; a call beyond their number waits for one.
struct Sessions {
    free: Mutex<Vec<Session>>,
    returned: Condvar,
}

impl Sessions {
    fn take(&self) -> Taken<'_> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match free.pop() {
                Some(session) => return Taken { session: Some(session), sessions: self },
                None => free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

struct Taken<'a> {
    /// Until it is given back.
    session: Option<Session>,
    sessions: &'a Sessions,
}

impl Deref for Taken<'_> {
    type Target = Session;

    fn deref(&self) -> &Self::Target {
        self.session.as_ref().expect("it is here until it is dropped")
    }
}

impl DerefMut for Taken<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.session.as_mut().expect("it is here until it is dropped")
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.sessions.free.lock().unwrap_or_else(PoisonError::into_inner).extend(self.session.take());
        self.sessions.returned.notify_one();
    }
}
