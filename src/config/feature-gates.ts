import { suggestion } from "./nearest.ts";

/** Stable, and on for good: upstream refuses to switch them off. */
const locked = names(`
  APIServerTracing AggregatedDiscoveryRemoveBetaType AllowOverwriteTerminationGracePeriodSeconds
  AnonymousAuthConfigurableEndpoints AnyVolumeDataSource AuthorizeNodeWithSelectors
  AuthorizeWithSelectors BtreeWatchCache CPUManagerPolicyOptions CRDValidationRatcheting
  CSIServiceAccountTokenSecrets ConsistentListFromCache CustomResourceFieldSelectors
  DRAAdminAccess DeclarativeValidation DisableAllocatorDualWrite DisableNodeKubeProxyVersion
  DynamicResourceAllocation ExecProbeTimeout ExternalServiceAccountTokenSigner GitRepoVolumeDriver
  ImageMaximumGCAge ImageVolume InOrderInformers InPlacePodVerticalScaling JobBackoffLimitPerIndex
  JobManagedBy JobPodReplacementPolicy JobSuccessPolicy KubeletCgroupDriverFromCRI
  KubeletFineGrainedAuthz KubeletPSI KubeletPodResourcesDynamicResources KubeletPodResourcesGet
  KubeletTracing LogarithmicScaleDown MatchLabelKeysInPodAffinity MultiCIDRServiceAllocator
  MutableCSINodeAllocatableCount NFTablesProxyMode NodeInclusionPolicyInPodTopologySpread
  NodeLogQuery NodeSwap OrderedNamespaceDeletion PodLifecycleSleepAction
  PodLifecycleSleepActionAllowZero PodObservedGenerationTracking PodSchedulingReadiness
  PreferSameTrafficDistribution ProcMountType RecoverVolumeExpansionFailure
  RecursiveReadOnlyMounts RelaxedDNSSearchValidation RelaxedEnvironmentVariableValidation
  ResilientWatchCacheInitialization RetryGenerateName SELinuxChangePolicy
  SELinuxMountReadWriteOncePod SchedulerQueueingHints SeparateCacheWatchRPC
  SeparateTaintEvictionController ServiceAccountTokenJTI ServiceAccountTokenNodeBinding
  ServiceAccountTokenNodeBindingValidation ServiceAccountTokenPodNodeInfo SidecarContainers
  StreamingCollectionEncodingToJSON StreamingCollectionEncodingToProtobuf
  StructuredAuthenticationConfiguration SupplementalGroupsPolicy SystemdWatchdog
  TopologyManagerPolicyOptions UserNamespacesSupport VolumeAttributesClass WinDSR WinOverlay
`);

/** On by default; the node's behaviour depends on them. */
const on = names(`
  ComponentFlagz ComponentStatusz ContainerCheckpoint
  ContainerRestartRules CustomCPUCFSQuotaPeriod DRAConsumableCapacity DRAExtendedResource EnvFiles
  ExtendWebSocketsToKubelet HostnameOverride InPlacePodLevelResourcesVerticalScaling
  InPlacePodVerticalScalingInitContainers KubeletCrashLoopBackOffMax
  KubeletEnsureSecretPulledImages KubeletPodResourcesListUseActivePods
  KubeletServiceAccountTokenForCredentialProviders NodeDeclaredFeatures PLEGOnDemandRelist
  PodLevelResources PodReadyToStartContainersCondition PreventStaticPodAPIReferences
  ReloadKubeletClientCAFile ReloadKubeletServerCertificateFile ResourceHealthStatus
  ResourceHealthStatusMessage RestartAllContainersOnContainerExits RotateKubeletServerCertificate
  WatchListClient
`);

/** Off by default; the node's behaviour depends on them. */
const off = names(`
  AllAlpha AllBeta AllowDNSOnlyNodeCSR CRIListStreaming CSIVolumeHealth
  ChangeContainerStatusOnKubeletRestart DRAWorkloadResourceClaims
  GenericWorkload ImageVolumeWithDigest InPlacePodVerticalScalingExclusiveCPUs
  InPlacePodVerticalScalingExclusiveMemory KubeletInUserNamespace
  LocalStorageCapacityIsolationFSQuotaMonitoring MemoryQoS NativeHistograms
  PodAndContainerStatsFromCRI PodCertificateRequest PodLevelResourceManagers PodsAPI QOSReserved
  ReduceDefaultCrashLoopBackOffDecay RuntimeClassInImageCriApi SELinuxMount
  TaintTolerationComparisonOperators
`);

/** Off by default; the node can do both. */
const choicesOff = names("ClusterTrustBundle ClusterTrustBundleProjection");

/** On by default; the node can do both. */
const choicesOn = names("AllowServiceExternalIPs");

/** What a gate cannot be on without. */
const dependencies: Readonly<Record<string, string>> = {
  ClusterTrustBundleProjection: "ClusterTrustBundle",
};

/** On by default; they concern other components, or change nothing that Remora does. */
const elsewhereOn = names(`
  APIResponseCompression APIServerIdentity AllowParsingUserUIDFromCertAuth AtomicFIFO
  AuthorizePodWebsocketUpgradeCreatePermission CPUManagerPolicyBetaOptions
  CRDObservedGenerationTracking ClearingNominatedNodeNameAfterBinding ClientsAllowCARotation
  ClientsAllowTLSCacheGC ConstrainedImpersonation ContextualLogging DRADeviceBindingConditions
  DRADeviceTaints DRAPartitionableDevices DRAPrioritizedList DRAResourceClaimDeviceStatus
  DRAResourceClaimGranularStatusAuthorization DRASchedulerFilterTimeout DeclarativeValidationBeta
  DeploymentReplicaSetTerminatingReplicas DetectCacheInconsistency
  DisableCPUQuotaWithExclusiveCPUs GracefulNodeShutdown GracefulNodeShutdownBasedOnPodPriority
  HPAConfigurableTolerance InOrderInformersBatchProcess InformerResourceVersion
  KubeletSeparateDiskGC ListFromCacheSnapshot LoggingBetaOptions MatchLabelKeysInPodTopologySpread
  MatchLabelKeysInPodTopologySpreadSelectorMerge MutablePodResourcesForSuspendedJobs
  MutableSchedulingDirectivesForSuspendedJobs MutatingAdmissionPolicy
  NominatedNodeNameForExpectation OpenAPIEnums OpportunisticBatching PodDeletionCost
  PodTopologyLabelsAdmission PortForwardWebsockets RelaxedServiceNameValidation
  RemoteRequestHeaderUID SchedulerAsyncPreemption SchedulerPopFromBackoffQ
  ServiceAccountNodeAudienceRestriction ServiceCIDRStatusFieldWiping SizeBasedListCostEstimate
  StaleControllerConsistencyDaemonSet StaleControllerConsistencyJob
  StaleControllerConsistencyReplicaSet StaleControllerConsistencyStatefulSet
  StatefulSetSemanticRevisionComparison StorageNamespaceIndex StorageVersionHash
  StrictIPCIDRValidation StructuredAuthenticationConfigurationEgressSelector
  StructuredAuthenticationConfigurationJWKSMetrics TokenRequestServiceAccountUIDValidation
  TopologyManagerPolicyBetaOptions TranslateStreamCloseWebsocketRequests
  UnauthenticatedHTTP2DOSMitigation UnknownVersionInteroperabilityProxy UnlockWhileProcessingFIFO
  WatchCacheInitializationPostStartHook WatchList WindowsGracefulNodeShutdown
`);

/** Off by default; they concern other components, or change nothing that Remora does. */
const elsewhereOff = names(`
  APIServingWithRoutine AllowInsecureKubeletCertificateSigningRequests
  AllowUnsafeMalformedObjectDeletion CBORServingAndStorage CPUManagerPolicyAlphaOptions
  ClientsAllowCBOR ClientsPreferCBOR CloudControllerManagerWatchBasedRoutesReconciliation
  CloudControllerManagerWebhook ConcurrentWatchObjectDecode
  ContainerStopSignals CoordinatedLeaderElection CrossNamespaceVolumeDataSource
  DRADeviceTaintRules DRAListTypeAttributes DRANodeAllocatableResources DRAResourcePoolStatus
  DeclarativeValidationTakeover EventedPLEG GangScheduling HPAScaleToZero KMSv1
  KubeletRegistrationGetOnExistsOnly LoggingAlphaOptions ManifestBasedAdmissionControlConfig
  MaxUnavailableStatefulSet MutablePVNodeAffinity PersistentVolumeClaimUnusedSinceTime
  PodLogsQuerySplitStreams SchedulerAsyncAPICalls ShardedListAndWatch StorageCapacityScoring
  StorageVersionAPI StorageVersionMigrator TopologyAwareWorkloadScheduling
  TopologyManagerPolicyAlphaOptions UserNamespacesHostNetworkSupport VolumeLimitScaling
  WindowsCPUAndMemoryAffinity WindowsHostNetwork WorkloadAwarePreemption WorkloadWithJob
`);

function names(text: string): ReadonlySet<string> {
  return new Set(text.split(/\s+/).filter((name) => name !== ""));
}

/** Whether a feature gate of Kubernetes 1.36 is on. */
export function gateEnabled(name: string, set: Readonly<Record<string, boolean>>): boolean {
  const byDefault = [locked, on, choicesOn, elsewhereOn];
  return set[name] ?? byDefault.some((gates) => gates.has(name));
}

/** What a feature gate that was set comes to. */
export interface GateVerdict {
  readonly severity: "error" | "ignored";
  readonly text: string;
}

/** Undefined: the gate is what it is anyhow, or it is the node's to choose. */
export function judgeGate(name: string, value: boolean): GateVerdict | undefined {
  if (choicesOff.has(name) || choicesOn.has(name)) return undefined;
  if (locked.has(name)) {
    if (value) return undefined;
    const text = `cannot set feature gate ${name} to false, feature is locked to true`;
    return { severity: "error", text };
  }
  if (on.has(name) || off.has(name)) {
    if (value === on.has(name)) return undefined;
    return {
      severity: "error",
      text: `Remora behaves as with ${name}=${String(!value)}; leave it out`,
    };
  }
  if (elsewhereOn.has(name) || elsewhereOff.has(name)) {
    if (value === elsewhereOn.has(name)) return undefined;
    return {
      severity: "ignored",
      text: `${name} has no effect: nothing in this agent depends on it`,
    };
  }
  const choices = [...choicesOff, ...choicesOn];
  const all = [...locked, ...on, ...off, ...choices, ...elsewhereOn, ...elsewhereOff];
  const hint = suggestion(name, all);
  return { severity: "error", text: `unrecognized feature gate: ${name}${hint}` };
}

/** What gates that were set come to together. */
export function judgeGates(set: Readonly<Record<string, boolean>>): readonly GateVerdict[] {
  return Object.entries(dependencies).flatMap(([name, needed]) => {
    if (!gateEnabled(name, set) || gateEnabled(needed, set)) return [];
    const text = `${name} is enabled, but depends on features that are disabled: [${needed}]`;
    return [{ severity: "error", text }];
  });
}
