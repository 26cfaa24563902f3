//! The embedded engine: rten, pure Rust, on the processor.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use prost::bytes::Bytes;
use rten::{DataType, Dimension, ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueOrView, ValueType};

use super::engine::{Engine, Kind, Port};
use super::graph::GraphModel;
use super::proto;
use super::section::Section;
use crate::manifest::Device;
use crate::model::{Model, RunsOn, Tensor, TensorData};
use crate::open::OpenError;
use crate::package::Package;

/// As results and events name it.
const NAME: &str = "rten 0.27";

/// Opens a package whose backend is `onnx`.
///
/// # Errors
/// [`OpenError`].
pub(crate) fn open(package: &Package) -> Result<Box<dyn Model>, OpenError> {
    if package.manifest.runtime.device == Device::Cuda {
        return Err(OpenError::Unavailable(
            "the backend onnx runs on the processor alone; for a GPU take the backend onnxruntime".to_owned(),
        ));
    }
    let section: Section = package.manifest.section()?;
    let model = GraphModel::open(package, &section, "onnx", || Ok(Box::new(Embedded::load(package, &section)?)))?;
    Ok(Box::new(model))
}

struct Embedded {
    model: rten::Model,
    inputs: Vec<(Port, NodeId)>,
    input_ports: Vec<Port>,
    outputs: Vec<NodeId>,
    output_ports: Vec<Port>,
    pools: Pools,
    bytes: u64,
}

impl Embedded {
    fn load(package: &Package, section: &Section) -> Result<Self, OpenError> {
        let broken = |reason: String| OpenError::Broken(format!("{}: {reason}", section.file));
        let graph = Bytes::from(package.file(&section.file)?.into_owned());
        let mut bytes = graph.len() as u64;
        drop(proto::read(graph.clone()).map_err(broken)?);
        let mut options = ModelOptions::with_all_ops();
        // Without it every call would pack the weights anew: twice the time at small batches.
        options.prepack_weights(true);
        for name in &section.data {
            let data = package.file(name)?.into_owned();
            bytes += data.len() as u64;
            options.external_data(name, data);
        }
        let model =
            options.load(graph.into()).map_err(|error| broken(format!("no graph this engine can run: {error}")))?;
        let inputs = ports(&model, model.input_ids()).map_err(broken)?;
        let outputs = ports(&model, model.output_ids()).map_err(broken)?;
        Ok(Self {
            input_ports: inputs.iter().map(|(port, _)| port.clone()).collect(),
            inputs,
            output_ports: outputs.iter().map(|(port, _)| port.clone()).collect(),
            outputs: outputs.into_iter().map(|(_, id)| id).collect(),
            model,
            pools: Pools::default(),
            bytes,
        })
    }
}

impl Engine for Embedded {
    fn runs_on(&self) -> RunsOn {
        RunsOn { engine: NAME.to_owned(), device: "cpu".to_owned() }
    }

    fn resident_bytes(&self) -> u64 {
        // The weights as they are, and packed for the processor.
        2 * self.bytes
    }

    fn inputs(&self) -> &[Port] {
        &self.input_ports
    }

    fn outputs(&self) -> &[Port] {
        &self.output_ports
    }

    fn run(&self, inputs: Vec<Tensor>, outputs: &[usize]) -> Result<Vec<Tensor>, String> {
        let inputs = inputs.into_iter().map(|tensor| self.feed(tensor)).collect::<Result<Vec<_>, _>>()?;
        let wanted: Vec<NodeId> = outputs.iter().map(|place| self.outputs[*place]).collect();
        let pool = self.pools.take();
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(&pool)));
        let values = self.model.run(inputs, &wanted, Some(options)).map_err(|error| error.to_string())?;
        values.into_iter().zip(outputs).map(|(value, place)| read(value, &self.output_ports[*place].name)).collect()
    }
}

impl Embedded {
    fn feed(&self, tensor: Tensor) -> Result<(NodeId, ValueOrView<'static>), String> {
        let (port, id) = self
            .inputs
            .iter()
            .find(|(port, _)| port.name == tensor.name)
            .ok_or_else(|| format!("there is no input {:?}", tensor.name))?;
        let value = match (tensor.data, &port.kind) {
            (TensorData::F32(values), Kind::Float | Kind::Unknown) => shaped(&tensor.shape, values),
            (TensorData::I64(values), Kind::Int | Kind::Unknown) => {
                let narrow = values.into_iter().map(i32::try_from).collect::<Result<Vec<_>, _>>();
                shaped(&tensor.shape, narrow.map_err(|_| "a whole number is too large for this engine".to_owned())?)
            }
            _ => Err(format!("the input {:?} wants another type", port.name)),
        };
        Ok((*id, value?.into()))
    }
}

fn shaped<T>(shape: &[usize], values: Vec<T>) -> Result<Value, String>
where
    Value: From<rten_tensor::Tensor<T>>,
{
    Value::from_shape(shape, values).map_err(|error| error.to_string())
}

fn read(value: Value, name: &str) -> Result<Tensor, String> {
    let (shape, data) = match value {
        Value::FloatTensor(tensor) => (shape_of(&tensor), TensorData::F32(tensor.into_data())),
        Value::Int32Tensor(tensor) => (shape_of(&tensor), TensorData::I64(wide(tensor.into_data()))),
        Value::Int8Tensor(tensor) => (shape_of(&tensor), TensorData::I64(wide(tensor.into_data()))),
        Value::UInt8Tensor(tensor) => (shape_of(&tensor), TensorData::I64(wide(tensor.into_data()))),
        _ => return Err(format!("the output {name:?} is no tensor")),
    };
    Ok(Tensor { name: name.to_owned(), shape, data })
}

fn shape_of<T>(tensor: &rten_tensor::Tensor<T>) -> Vec<usize> {
    rten_tensor::Layout::shape(tensor).to_vec()
}

fn wide<T: Into<i64>>(values: Vec<T>) -> Vec<i64> {
    values.into_iter().map(Into::into).collect()
}

fn ports(model: &rten::Model, ids: &[NodeId]) -> Result<Vec<(Port, NodeId)>, String> {
    ids.iter()
        .map(|id| {
            let info = model.node_info(*id).ok_or("the graph names an input or output it does not have")?;
            let name = info.name().ok_or("the graph has an input or output without a name")?.to_owned();
            let kind = match info.dtype() {
                Some(ValueType::Tensor(DataType::Float)) => Kind::Float,
                Some(ValueType::Tensor(DataType::Int32)) => Kind::Int,
                Some(other) => Kind::Other(other.to_string()),
                None => Kind::Unknown,
            };
            let shape = info.shape().map(|dims| {
                let length = |dim| match dim {
                    Dimension::Fixed(length) => Some(length),
                    Dimension::Symbolic(_) => None,
                };
                dims.into_iter().map(length).collect()
            });
            Ok((Port { name, kind, shape }, *id))
        })
        .collect()
}

/// Pools of one thread each, as many as there were calls at once: on a processor, calls side by side on one thread each
/// give more answers than one call on many threads, and a pool of their own keeps them from waiting for each other.
#[derive(Default)]
struct Pools(Mutex<Vec<Arc<ThreadPool>>>);

impl Pools {
    fn take(&self) -> Taken<'_> {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Taken { pool: Some(free.unwrap_or_else(|| Arc::new(ThreadPool::with_num_threads(1)))), pools: self }
    }
}

struct Taken<'a> {
    /// Until it is given back.
    pool: Option<Arc<ThreadPool>>,
    pools: &'a Pools,
}

impl Deref for Taken<'_> {
    type Target = Arc<ThreadPool>;

    fn deref(&self) -> &Self::Target {
        self.pool.as_ref().expect("it is here until it is dropped")
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut free = self.pools.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.deref_mut().extend(self.pool.take());
    }
}
