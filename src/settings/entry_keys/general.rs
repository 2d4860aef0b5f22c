//! Keys of the entry itself, of the cache, and of tables that no executor owns.

use super::{EntryKey, keys};

/// A key without a flag has an option of its own in `register`, or none in gitlab-runner.
///
/// gitlab-runner also copies GOOGLE_APPLICATION_CREDENTIALS into `cache.gcs.CredentialsFile`. Google's client reads
/// that variable itself, and it is set for many other programs, so it has no row.
#[rustfmt::skip]
pub(super) const KEYS: &[EntryKey] = keys! {
    "name": Text;
    "url": Text;
    "id": Integer;
    "token": Secret;
    "token_obtained_at": Any;
    "token_expires_at": Any;
    "tls-ca-file": Text;
    "tls-cert-file": Text;
    "tls-key-file": Text;
    "executor": Text;
    "shell": Text;
    "limit": Integer;
    "output_limit": Integer;
    "request_concurrency": Integer;
    "strict_check_interval": Switch, "", "RUNNER_STRICT_CHECK_INTERVAL";
    "unhealthy_requests_limit": Integer, "", "RUNNER_UNHEALTHY_REQUESTS_LIMIT";
    "unhealthy_interval": Duration;
    "job_status_final_update_retry_limit": Integer, "", "RUNNER_JOB_STATUS_FINAL_UPDATE_RETRY_LIMIT";
    "labels": Map;
    "builds_dir": Text, "builds-dir", "RUNNER_BUILDS_DIR";
    "cache_dir": Text, "cache-dir", "RUNNER_CACHE_DIR";
    "clone_url": Text, "clone-url", "CLONE_URL";
    "environment": List, "env", "RUNNER_ENV";
    "proxy_exec": Switch, "proxy-exec", "RUNNER_PROXY_EXEC";
    "pre_get_sources_script": Text, "pre-get-sources-script", "RUNNER_PRE_GET_SOURCES_SCRIPT";
    "post_get_sources_script": Text, "post-get-sources-script", "RUNNER_POST_GET_SOURCES_SCRIPT";
    "pre_clone_script": Text, "pre-clone-script", "RUNNER_PRE_CLONE_SCRIPT";
    "post_clone_script": Text, "post-clone-script", "RUNNER_POST_CLONE_SCRIPT";
    "pre_build_script": Text, "pre-build-script", "RUNNER_PRE_BUILD_SCRIPT";
    "post_build_script": Text, "post-build-script", "RUNNER_POST_BUILD_SCRIPT";
    "debug_trace_disabled": Switch, "debug-trace-disabled", "RUNNER_DEBUG_TRACE_DISABLED";
    "safe_directory_checkout": Switch, "safe-directory-checkout", "RUNNER_SAFE_DIRECTORY_CHECKOUT";
    "clean_git_config": Switch, "clean-git-config", "RUNNER_CLEAN_GIT_CONFIG";
    "use_slot_cgroups": Switch, "use-slot-cgroups", "RUNNER_USE_SLOT_CGROUPS";
    "slot_cgroup_template": Text, "slot-cgroup-template", "RUNNER_SLOT_CGROUP_TEMPLATE";
    "step_runner_image": Text, "step-runner-image", "STEP_RUNNER_IMAGE";
    "feature_flags": Flags, "feature-flags", "FEATURE_FLAGS";
    "custom_build_dir.enabled": Switch, "custom_build_dir-enabled", "CUSTOM_BUILD_DIR_ENABLED";
    "monitoring": Any;
    "referees": Any;
    "instance.allowed_images": List;
    "instance.use_common_build_dir": Switch;
    "cache.Type": Text, "cache-type", "CACHE_TYPE";
    "cache.Path": Text, "cache-path", "CACHE_PATH";
    "cache.Shared": Switch, "cache-shared", "CACHE_SHARED";
    "cache.MaxUploadedArchiveSize": Integer, "cache-max_uploaded_archive_size", "CACHE_MAXIMUM_UPLOADED_ARCHIVE_SIZE";
    "cache.s3.ServerAddress": Text, "cache-s3-server-address", "CACHE_S3_SERVER_ADDRESS";
    "cache.s3.AccessKey": Secret, "cache-s3-access-key", "CACHE_S3_ACCESS_KEY";
    "cache.s3.SecretKey": Secret, "cache-s3-secret-key", "CACHE_S3_SECRET_KEY";
    "cache.s3.SessionToken": Secret, "cache-s3-session-token", "CACHE_S3_SESSION_TOKEN";
    "cache.s3.BucketName": Text, "cache-s3-bucket-name", "CACHE_S3_BUCKET_NAME";
    "cache.s3.BucketLocation": Text, "cache-s3-bucket-location", "CACHE_S3_BUCKET_LOCATION";
    "cache.s3.Insecure": Switch, "cache-s3-insecure", "CACHE_S3_INSECURE";
    "cache.s3.AuthenticationType": Text, "cache-s3-authentication_type", "CACHE_S3_AUTHENTICATION_TYPE";
    "cache.s3.ServerSideEncryption": Text, "cache-s3-server-side-encryption", "CACHE_S3_SERVER_SIDE_ENCRYPTION";
    "cache.s3.ServerSideEncryptionKeyID": Text, "cache-s3-server-side-encryption-key-id", "CACHE_S3_SERVER_SIDE_ENCRYPTION_KEY_ID";
    "cache.s3.DualStack": Switch, "cache-s3-dual-stack", "CACHE_S3_DUAL_STACK";
    "cache.s3.PathStyle": Switch, "cache-s3-path-style", "CACHE_S3_PATH_STYLE";
    "cache.s3.Accelerate": Switch, "cache-s3-accelerate", "CACHE_S3_ACCELERATE";
    "cache.s3.RoleARN": Text, "cache-s3-role-arn", "CACHE_S3_ROLE_ARN";
    "cache.s3.UploadRoleARN": Text, "cache-s3-upload-role-arn", "CACHE_S3_UPLOAD_ROLE_ARN";
    "cache.gcs.AccessID": Text, "cache-gcs-access-id", "CACHE_GCS_ACCESS_ID";
    "cache.gcs.PrivateKey": Secret, "cache-gcs-private-key", "CACHE_GCS_PRIVATE_KEY";
    "cache.gcs.CredentialsFile": Text, "cache-gcs-credentials-file";
    "cache.gcs.BucketName": Text, "cache-gcs-bucket-name", "CACHE_GCS_BUCKET_NAME";
    "cache.gcs.UniverseDomain": Text, "cache-gcs-universe-domain", "CACHE_GCS_UNIVERSE_DOMAIN";
    "cache.azure.AccountName": Text, "cache-azure-account-name", "CACHE_AZURE_ACCOUNT_NAME";
    "cache.azure.AccountKey": Secret, "cache-azure-account-key", "CACHE_AZURE_ACCOUNT_KEY";
    "cache.azure.ContainerName": Text, "cache-azure-container-name", "CACHE_AZURE_CONTAINER_NAME";
    "cache.azure.StorageDomain": Text, "cache-azure-storage-domain", "CACHE_AZURE_STORAGE_DOMAIN";
};
